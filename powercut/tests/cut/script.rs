//! The program under test: operations on files as text, `name arguments`, separated by semicolons.
#![expect(clippy::print_stdout, reason = "the parent process reads what is printed")]

use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::atomic::{AtomicU32, Ordering};

/// Printed when the script is done.
pub(crate) const DONE: &str = "script done";

/// One operation as text.
#[derive(Clone, Debug)]
pub(crate) struct Op(pub(crate) String);

impl std::fmt::Display for Op {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.write_str(&self.0)
    }
}

/// Runs the script in the current directory, says so, and waits until standard input closes or a kill.
pub(crate) fn run(text: &str) {
    let mut held = None;
    for op in text.split(';') {
        let words: Vec<&str> = op.split_whitespace().collect();
        if let Err(error) = step(&words, &mut held) {
            println!("{op}: {error}");
            return;
        }
    }
    println!("{DONE}");
    io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

fn step(words: &[&str], held: &mut Option<File>) -> io::Result<()> {
    match *words {
        ["write", path, at, text] => {
            let mut file = writable().open(path)?;
            file.seek(SeekFrom::Start(number(at)))?;
            file.write_all(text.as_bytes())
        }
        ["patch", path, at, text] => writable().open(path)?.write_all_at(text.as_bytes(), number(at)),
        ["append", path, text] => appending(path)?.write_all(text.as_bytes()),
        ["vector", path, at, text] => {
            let mut file = writable().open(path)?;
            file.seek(SeekFrom::Start(number(at)))?;
            let (head, tail) = text.as_bytes().split_at(1);
            let written = file.write_vectored(&[IoSlice::new(head), IoSlice::new(tail)])?;
            assert_eq!(written, text.len());
            Ok(())
        }
        ["syncwrite", path, at, text] => {
            let file = writable().custom_flags(libc::O_DSYNC).open(path)?;
            file.write_all_at(text.as_bytes(), number(at))
        }
        ["open", path] => appending(path).map(|file| *held = Some(file)),
        ["dup", _, text] => held.as_ref().expect("opened before").try_clone()?.write_all(text.as_bytes()),
        ["copy", from, to] => fs::copy(from, to).map(drop),
        ["create", path] => File::create(path).map(drop),
        ["truncate", path, length] => writable().open(path)?.set_len(number(length)),
        ["allocate", path, length] => allocate(&writable().open(path)?, 0, number(length)),
        ["reserve", path, length] => {
            allocate(&writable().open(path)?, libc::FALLOC_FL_KEEP_SIZE, number(length))
        }
        ["sync", path] => writable().open(path)?.sync_all(),
        ["datasync", path] => writable().open(path)?.sync_data(),
        ["failsync", path] => {
            let error = writable().open(path)?.sync_data().expect_err("this sync fails");
            assert_eq!(error.raw_os_error(), Some(libc::EIO));
            Ok(())
        }
        ["syncdir", path] => File::open(path)?.sync_all(),
        ["rename", from, to] => fs::rename(from, to),
        ["link", from, to] => fs::hard_link(from, to),
        ["unlink", path] => fs::remove_file(path),
        ["mkdir", path] => fs::create_dir(path),
        ["rmdir", path] => fs::remove_dir(path),
        ["threads", count, path] => threads(number(count), path),
        _ => on_a_disk(words, held),
    }
}

/// Operations about space.
fn on_a_disk(words: &[&str], held: &mut Option<File>) -> io::Result<()> {
    match *words {
        ["rawreserve", path, length] => {
            let file = writable().open(path)?;
            reserve_past_libc(&file, number(length))
        }
        ["zeros", path, length] => appending(path)?.write_all(&vec![0; size(length)]),
        ["part", path, length, expected] => {
            let written = appending(path)?.write(&vec![0; size(length)])?;
            assert_eq!(written, size(expected));
            Ok(())
        }
        ["copyin", path, length] => {
            let mut outside = tempfile::NamedTempFile::new()?;
            outside.write_all(&vec![0; size(length)])?;
            fs::copy(outside.path(), path).map(drop)
        }
        ["disk", bytes] => {
            let disk = std::env::var_os("POWERCUT_SPACE").expect("a disk of a chosen size");
            OpenOptions::new().write(true).open(disk)?.write_all(&number(bytes).to_le_bytes())
        }
        ["free", bytes] => {
            assert_eq!(free_space()?, [number(bytes); 2], "free by statvfs, and by a system call");
            Ok(())
        }
        ["nospace", ref op @ ..] => {
            let error = step(op, held).expect_err("this does not fit");
            assert_eq!(error.raw_os_error(), Some(libc::ENOSPC), "{op:?}");
            Ok(())
        }
        _ => Err(io::Error::other("no such operation")),
    }
}

fn writable() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false);
    options
}

fn appending(path: &str) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

fn size(word: &str) -> usize {
    word.parse().expect("a number")
}

fn number(word: &str) -> u64 {
    word.parse().expect("a number")
}

#[expect(unsafe_code, reason = "std has no call that reserves space")]
fn allocate(file: &File, mode: i32, length: u64) -> io::Result<()> {
    let length = i64::try_from(length).expect("a small number");
    // SAFETY: the descriptor is open and no memory is touched.
    let answer = unsafe { libc::fallocate(file.as_raw_fd(), mode, 0, length) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// As programs do that have no use for libc.
#[expect(unsafe_code, reason = "std has no call that reserves space")]
fn reserve_past_libc(file: &File, length: u64) -> io::Result<()> {
    // SAFETY: the descriptor is open and no memory is touched.
    let answer = unsafe { libc::syscall(libc::SYS_fallocate, file.as_raw_fd(), 0, 0_i64, length) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Free bytes of the disk of the current directory: as libc says, and as the kernel says.
#[expect(unsafe_code, reason = "std has no call that asks for free space")]
fn free_space() -> io::Result<[u64; 2]> {
    // SAFETY: zeroes are valid for both.
    let (mut by_libc, mut by_kernel) =
        unsafe { (std::mem::zeroed::<libc::statvfs>(), std::mem::zeroed::<libc::statfs>()) };
    let here = File::open(".")?;
    // SAFETY: a path that ends with a NUL, an open descriptor, and room for the answers.
    let failed = unsafe {
        libc::statvfs(c".".as_ptr(), &raw mut by_libc) != 0
            || libc::syscall(libc::SYS_fstatfs, here.as_raw_fd(), &raw mut by_kernel) != 0
    };
    if failed {
        return Err(io::Error::last_os_error());
    }
    let block = u64::try_from(by_kernel.f_bsize).expect("a size");
    Ok([by_libc.f_bavail * by_libc.f_frsize, by_kernel.f_bavail * block])
}

/// Threads that append to one file, each with its own descriptor, and print what was synced. The script is
/// done in the middle, so that the kill falls into their work.
fn threads(count: u64, path: &str) -> io::Result<()> {
    let synced = AtomicU32::new(0);
    appending(path)?.sync_all()?;
    File::open(".")?.sync_all()?;
    let work = |thread: u64| -> io::Result<()> {
        let mut file = appending(path)?;
        for line in 0..5000 {
            file.write_all(format!("{thread}-{line}\n").as_bytes())?;
            file.sync_data()?;
            println!("acked {thread}-{line}");
            if synced.fetch_add(1, Ordering::Relaxed) == 400 {
                println!("{DONE}");
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..count)
            .map(|thread| {
                let work = &work;
                scope.spawn(move || work(thread))
            })
            .collect();
        running.into_iter().try_for_each(|thread| thread.join().expect("no panic"))
    })
}
