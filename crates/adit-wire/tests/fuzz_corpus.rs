//! Runs the fuzz targets on the files in `corpus/TARGET/` and on mutations of each, the same ones
//! in every run.
#![expect(clippy::print_stdout, reason = "shows the input when a target fails")]

use std::fs;
use std::path::PathBuf;

use adit_wire::fuzz::TARGETS;

const MUTATIONS: u32 = 400;

fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = entries
        .map(|entry| {
            let path = entry.expect("a readable folder").path();
            let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            (path, bytes)
        })
        .collect();
    files.sort();
    files
}

/// Xorshift (Marsaglia 2003). It needs no dependency and is the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}

fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(3) {
        let at = random.below(bytes.len());
        match random.below(6) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, random.next() as u8),
            2 if !bytes.is_empty() => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
            3 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
            4 => bytes.extend_from_within(at..),
            _ if !bytes.is_empty() => bytes[at] = random.next() as u8,
            _ => {}
        }
    }
}

/// Makes the header checksum right again, so that mutations pass its check.
fn mend(bytes: &mut [u8], prefix: usize) {
    let Some(datagram) = bytes.get_mut(prefix..) else { return };
    let header_len = datagram.first().map_or(0, |first| usize::from(first & 15) * 4);
    if header_len < 20 || datagram.len() < header_len {
        return;
    }
    let total_len = (datagram.len().min(0xffff) as u16).to_be_bytes();
    datagram[2..4].copy_from_slice(&total_len);
    datagram[10..12].fill(0);
    let sum = adit_wire::checksum::checksum(&datagram[..header_len]);
    datagram[10..12].copy_from_slice(&sum.to_be_bytes());
}

#[test]
fn every_target_holds_on_its_corpus() {
    for (name, target) in TARGETS {
        let files = corpus(name);
        assert!(!files.is_empty(), "corpus/{name} is empty");
        for (path, bytes) in files {
            assert!(bytes.len() <= 4096, "{} is too long to be cheap", path.display());
            println!("{}", path.display());
            target(&bytes);
        }
    }
}

#[test]
fn every_target_holds_on_mutations_of_its_corpus() {
    for (name, target) in TARGETS {
        let mut random = Random(0x2003_1996_1071_1624);
        for (path, original) in corpus(name) {
            for round in 0..MUTATIONS {
                let mut bytes = original.clone();
                mutate(&mut bytes, &mut random);
                if round % 2 == 0 {
                    mend(&mut bytes, if matches!(name, "fragment" | "clamp_mss") { 2 } else { 0 });
                }
                println!("{} round {round}: {bytes:02x?}", path.display());
                target(&bytes);
            }
        }
    }
}

#[test]
fn every_corpus_belongs_to_a_target() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut folders: Vec<_> = fs::read_dir(folder)
        .expect("the corpus")
        .map(|entry| entry.expect("a readable folder").file_name().into_string().expect("UTF-8"))
        .collect();
    folders.sort();
    assert_eq!(folders, TARGETS.map(|(name, _)| name));
}
