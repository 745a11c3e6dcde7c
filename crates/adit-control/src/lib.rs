//! An overlay's life: its kernel objects, its data plane, its socket.
