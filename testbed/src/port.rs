//! TCP ports for servers that are told where to listen, and that come back at the same port.
//!
//! A port found by binding port 0 and letting go is anybody's a moment later, and a client that tries to reach a server
//! that is away can be given that very port for its own end, and connect to itself. So these ports are
//! below the range that the kernel hands out, and a lock on a file keeps each for one test at a time, in any process.

use std::{
    fs::{self, File},
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU16, Ordering},
};

const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// A port on 127.0.0.1 that is free, and kept until this is dropped. Nothing listens there until somebody does.
#[derive(Debug)]
pub struct Port {
    number: u16,
    path: PathBuf,
    /// Holds the lock.
    _file: File,
}

impl Port {
    /// Takes a free port.
    ///
    /// # Panics
    /// When none is free.
    #[must_use]
    pub fn reserve() -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let folder = std::env::temp_dir().join("sidelog-testbed-ports");
        fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let start = u64::from(process::id()) * 31;
        (0..COUNT)
            .find_map(|_| {
                let step = start + u64::from(NEXT.fetch_add(1, Ordering::Relaxed));
                let offset = u16::try_from(step % u64::from(COUNT)).expect("below COUNT");
                Self::take(&folder, FIRST + offset)
            })
            .expect("a free port")
    }

    fn take(folder: &Path, number: u16) -> Option<Self> {
        let path = folder.join(number.to_string());
        let file = File::create(&path).ok()?;
        file.try_lock().ok()?;
        let port = is_at(&file, &path).ok()?.then_some(Self {
            number,
            path,
            _file: file,
        })?;
        TcpListener::bind(port.address()).ok()?;
        Some(port)
    }

    /// The port's number.
    #[must_use]
    pub const fn number(&self) -> u16 {
        self.number
    }

    /// `127.0.0.1:<port>`.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.number).into()
    }
}

/// Whether the locked file is still the one at its path: its last owner removes it.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let (locked, there) = (file.metadata()?, fs::metadata(path)?);
    Ok((locked.dev(), locked.ino()) == (there.dev(), there.ino()))
}

impl Drop for Port {
    fn drop(&mut self) {
        // Removed before the lock goes with the file; if that fails, an empty file stays.
        drop(fs::remove_file(&self.path));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_two_tests_have_the_same_port() {
        let ports: Vec<Port> = (0..50).map(|_| Port::reserve()).collect();
        let numbers: HashSet<u16> = ports.iter().map(Port::number).collect();
        assert_eq!(numbers.len(), ports.len());
    }

    #[test]
    fn a_port_that_is_kept_or_in_use_is_not_taken() {
        let port = Port::reserve();
        let folder = port.path.parent().unwrap().to_owned();
        assert!(Port::take(&folder, port.number).is_none(), "kept");

        let number = port.number;
        let _listener = TcpListener::bind(port.address()).unwrap();
        drop(port);
        assert!(Port::take(&folder, number).is_none(), "in use");
    }
}
