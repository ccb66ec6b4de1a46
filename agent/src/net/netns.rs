//! Work inside another network namespace: a short-lived thread enters it, opens what is needed and ends. A socket
//! stays in the namespace it was born in, so the caller then goes on from its own thread.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};

use super::Error;
use super::socket::Socket;

/// An open network namespace; it lives at least as long as this.
pub(crate) struct Netns {
    file: File,
    name: String,
}

impl Netns {
    pub(crate) fn open(path: &Path) -> Result<Netns, Error> {
        let name = path.display().to_string();
        match File::open(path) {
            Ok(file) => Ok(Netns { file, name }),
            Err(e) => Err(error("open network namespace", &name, &e)),
        }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// A socket for links and routes inside the namespace.
    pub(crate) fn route_socket(&self) -> Result<Socket, Error> {
        self.within(Socket::route)
    }

    /// A connection to a port of the namespace's own loopback. Blocks, at most `limit` for each address.
    pub(crate) fn connect_loopback(&self, port: u16, limit: Duration) -> Result<TcpStream, Error> {
        self.within(|| {
            connect_loopback(port, limit).map_err(|e| error("connect inside network namespace", &self.name, &e))
        })
    }

    fn within<T: Send>(&self, open: impl FnOnce() -> Result<T, Error> + Send) -> Result<T, Error> {
        let enter = || -> Result<T, Error> {
            setns(&self.file, CloneFlags::CLONE_NEWNET)
                .map_err(|e| error("enter network namespace", &self.name, &io::Error::from(e)))?;
            open()
        };
        std::thread::scope(|scope| {
            let thread =
                std::thread::Builder::new().name("netns".into()).stack_size(64 * 1024).spawn_scoped(scope, enter);
            match thread.map(std::thread::ScopedJoinHandle::join) {
                Ok(Ok(result)) => result,
                Ok(Err(_)) => {
                    Err(error("enter network namespace", &self.name, &io::Error::other("its thread panicked")))
                }
                Err(e) => Err(error("start thread for network namespace", &self.name, &e)),
            }
        })
    }
}

/// A connection to a port of this network namespace's loopback: the older address first, as resolvers have it.
pub(crate) fn connect_loopback(port: u16, limit: Duration) -> io::Result<TcpStream> {
    let first = TcpStream::connect_timeout(&(Ipv4Addr::LOCALHOST, port).into(), limit);
    first.or_else(|refused| TcpStream::connect_timeout(&(Ipv6Addr::LOCALHOST, port).into(), limit).map_err(|_| refused))
}

fn error(op: &'static str, object: &str, cause: &io::Error) -> Error {
    Error::Kernel { op, object: object.to_owned(), cause: cause.to_string(), errno: cause.raw_os_error().unwrap_or(0) }
}
