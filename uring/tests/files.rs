//! Files are opened below a folder and nowhere else, by the ring and by the simulator alike.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use uring::sim::{Faults, SimWorld};
use uring::{Driver, Errno, Event, FileKind, Open, Opened, Ring, RingOptions};

/// A folder with what could be led astray by, gone at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("uring-files-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        let root = path.join("root");
        std::fs::create_dir_all(root.join("below")).expect("a folder");
        std::fs::write(path.join("secret"), b"secret").expect("a file");
        std::fs::write(root.join("plain"), b"four").expect("a file");
        std::fs::write(root.join("below/deep"), b"deeper").expect("a file");
        symlink("below/deep", root.join("good")).expect("a link");
        symlink("../secret", root.join("out")).expect("a link");
        symlink(path.join("secret"), root.join("absolute")).expect("a link");
        symlink("..", root.join("below/up")).expect("a link");
        symlink("/proc/self/fd/0", root.join("magic")).expect("a link");
        symlink("loop", root.join("loop")).expect("a link");
        let status = std::process::Command::new("mkfifo").arg(root.join("fifo")).status();
        assert!(status.expect("mkfifo").success());
        Folder(path)
    }

    fn root(&self) -> PathBuf {
        self.0.join("root")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("no NUL")
}

/// Opens one file with any driver.
fn opened<D: Driver>(driver: &mut D, what: Open, step: &dyn Fn()) -> Result<Opened, Errno> {
    let wanted = driver.open_file(what);
    let began = Instant::now();
    let mut events = Vec::new();
    while began.elapsed() < Duration::from_secs(10) {
        step();
        let until = driver.now_exact() + 100_000_000;
        driver.turn(Some(until), &mut events).expect("the driver works");
        for event in events.drain(..) {
            if let Event::Opened { opening, result } = event
                && opening == wanted
            {
                return result;
            }
        }
    }
    panic!("no answer");
}

fn check<D: Driver>(driver: &mut D, folder: &Folder, step: &dyn Fn()) {
    let root = opened(driver, Open::Root(path(&folder.root())), step).expect("it is there");
    assert_eq!(root.kind, FileKind::Folder);
    let root: Arc<OwnedFd> = Arc::new(root.file);
    let below = |name: &str| Open::Below(root.clone(), CString::new(name).expect("no NUL"));
    for (name, kind, len) in [
        ("plain", FileKind::Regular, Some(4)),
        ("below/deep", FileKind::Regular, Some(6)),
        ("good", FileKind::Regular, Some(6)),
        ("below/up/plain", FileKind::Regular, Some(4)),
        ("below", FileKind::Folder, None),
        ("below/", FileKind::Folder, None),
        ("fifo", FileKind::Other, None),
    ] {
        let opened = opened(driver, below(name), step);
        let opened = opened.unwrap_or_else(|why| panic!("{name}: {why}"));
        assert_eq!(opened.kind, kind, "{name}");
        assert!(len.is_none_or(|len| len == opened.len), "{name}: {opened:?}");
        assert!(opened.inode > 0 && opened.modified.0 > 1_500_000_000, "{name}: {opened:?}");
    }
    let long = "x/".repeat(3_000);
    for (name, errno) in [
        ("missing", libc_enoent()),
        ("below/missing", libc_enoent()),
        ("plain/x", rustix::io::Errno::NOTDIR.raw_os_error()),
        ("out", rustix::io::Errno::XDEV.raw_os_error()),
        ("absolute", rustix::io::Errno::XDEV.raw_os_error()),
        ("../secret", rustix::io::Errno::XDEV.raw_os_error()),
        ("below/../../secret", rustix::io::Errno::XDEV.raw_os_error()),
        ("/etc/passwd", rustix::io::Errno::XDEV.raw_os_error()),
        ("magic", rustix::io::Errno::XDEV.raw_os_error()),
        ("loop", rustix::io::Errno::LOOP.raw_os_error()),
        (&long, rustix::io::Errno::NAMETOOLONG.raw_os_error()),
    ] {
        assert_eq!(opened(driver, below(name), step).map(drop), Err(Errno(errno)), "{name}");
    }
    let missing = opened(driver, Open::Root(path(&folder.0.join("none"))), step);
    assert_eq!(missing.map(drop), Err(Errno(libc_enoent())));
    let no_folder = opened(driver, Open::Root(path(&folder.root().join("plain"))), step);
    let errno = rustix::io::Errno::NOTDIR.raw_os_error();
    assert_eq!(no_folder.map(drop), Err(Errno(errno)));
}

fn libc_enoent() -> i32 {
    rustix::io::Errno::NOENT.raw_os_error()
}

fn ring() -> Ring {
    let options = RingOptions { entries: 64, cq_entries: 256, ..RingOptions::default() };
    Ring::new(options).expect("the tests need io_uring")
}

#[test]
fn nothing_leads_out_of_the_folder() {
    let folder = Folder::new("ring");
    check(&mut ring(), &folder, &|| {});
}

#[test]
fn the_simulator_opens_the_same() {
    let folder = Folder::new("sim");
    let world = SimWorld::new(7, Faults::rough());
    let mut driver = world.driver(0);
    check(&mut driver, &folder, &|| world.advance_to(world.now() + 1_000_000));
}

#[test]
fn a_ring_that_ends_closes_what_it_was_opening() {
    let folder = Folder::new("drop");
    let plain = folder.root().join("plain");
    let count = || {
        let entries = std::fs::read_dir("/proc/self/fd").expect("procfs").flatten();
        entries.filter(|entry| std::fs::read_link(entry.path()).is_ok_and(|p| p == plain)).count()
    };
    let root: OwnedFd = std::fs::File::open(folder.root()).expect("a folder").into();
    let root = Arc::new(root);
    for turned in [false, true] {
        let mut ring = ring();
        for _ in 0..20 {
            ring.open_file(Open::Below(root.clone(), c"plain".into()));
        }
        if turned {
            ring.turn(Some(0), &mut Vec::new()).expect("the ring works");
        }
        drop(ring);
        assert_eq!(Arc::strong_count(&root), 1);
        assert_eq!(count(), 0);
    }
}
