//! The reconciler's thread: what it repairs without an event.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::world::{Kernel, TUN, World, config};
use crate::reconcile::reconciler::Reconciler;
use crate::state::snapshot::SnapshotPublisher;
use crate::state::status::Status;

/// Far below the interval of looks at everything, which would repair it too.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A change of others between the start of the overlay and that of the thread has no event that the
/// thread could see.
fn a_change_before_the_first_look_is_repaired(mut world: World) {
    let before_start = world.bring_up(&config(TUN)).unwrap();
    let view = world.view();
    let device = world.index("ipipA");
    world.others.set_mtu(device, 1300).unwrap();
    let route = world.route("192.168.199.0/24", "ipipA");
    world.others.delete_routes(&[route]).unwrap();
    assert_ne!(world.view(), view);

    let overlay = Arc::new(Mutex::new(Some(before_start)));
    let read = Arc::clone(&overlay);
    let read = move || Ok(Status::of(read.lock().unwrap().as_mut().expect("the overlay is up")));
    let snapshots = Arc::new(SnapshotPublisher::new(Box::new(read)));
    let _reconciler = Reconciler::start(Arc::clone(&overlay), snapshots).unwrap();
    let deadline = Instant::now() + TIMEOUT;
    while world.view() != view {
        assert!(Instant::now() < deadline, "not repaired: {:#?}", world.view());
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_change_before_the_first_look_is_repaired_on_the_model() {
    Kernel::Model.run(&a_change_before_the_first_look_is_repaired);
}

#[test(root)]
fn a_change_before_the_first_look_is_repaired_on_the_kernel() {
    Kernel::Real.run(&a_change_before_the_first_look_is_repaired);
}
