//! A library to preload (`LD_PRELOAD`) into a process under test, to find out what a power cut would leave.
//!
//! Every file and directory below `POWERCUT_DIR` has a durable twin below `POWERCUT_TWIN`. A sync of a file
//! brings its data up to date there, a sync of a directory its names; nothing else does. Killing the process
//! is the power cut, and the twin directory is then what the disk holds. `docs/power-cut.md` says what is
//! modelled, what is not, and how to use it.
//!
//! ```text
//! edge::interpose   the libc symbols            -> faults, shim
//! edge::trap        calls that pass them by     -> faults
//! faults            what was ordered to go wrong (kill, space)
//! shim              finds the file, orders the real call and the bookkeeping
//! file, dirty       data of one file            -> store (twin inodes, by inode number)
//! names             names of each directory     -> twin (hard links to the store)
//! load, start         what is durable at first
//! settings            the environment
//! ```
//!
//! The shim keeps no table of descriptors: it asks the kernel which inode a descriptor stands for, at each
//! call. So nothing that makes or closes descriptors (`dup`, `fclose`, `exec`) needs to be followed.

mod dirty;
mod edge;
mod faults;
mod file;
mod kill;
mod load;
mod names;
mod settings;
mod shim;
mod space;
mod start;
