//! Machines and pods of the tests: threads that live in network namespaces of their own.

use std::any::Any;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use mote_agent::net::{NetConfig, Tag};
use nix::sched::{CloneFlags, unshare};

pub const WAIT: Duration = Duration::from_secs(5);

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace with a thread in it. Dropping it ends the namespace.
pub struct Ns {
    jobs: Option<mpsc::Sender<Job>>,
    file: File,
    tid: i32,
    thread: Option<thread::JoinHandle<()>>,
}

impl Ns {
    pub fn new() -> Ns {
        let (jobs, inbox) = mpsc::channel::<Job>();
        let (ready, born) = mpsc::channel();
        let thread = thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root: make a network namespace");
            ready.send((File::open("/proc/thread-self/ns/net").unwrap(), nix::unistd::gettid().as_raw())).unwrap();
            inbox.into_iter().for_each(|job| job());
        });
        let (file, tid) = born.recv().expect("a network namespace");
        let ns = Ns { jobs: Some(jobs), file, tid, thread: Some(thread) };
        ns.sh("ip link set lo up");
        ns
    }

    /// Runs `work` inside, and panics here if it panics there.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = mpsc::channel::<Result<T, Box<dyn Any + Send>>>();
        let job: Job = Box::new(move || drop(done.send(catch_unwind(AssertUnwindSafe(work)))));
        self.jobs.as_ref().unwrap().send(job).unwrap();
        result.recv().unwrap().unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Starts a thread inside that goes on by itself.
    pub fn spawn(&self, work: impl FnOnce() + Send + 'static) {
        // A new thread is born into its parent's namespace.
        self.run(move || drop(thread::spawn(work)));
    }

    /// A path by which this process finds the namespace.
    pub fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.file.as_raw_fd()).into()
    }

    /// Runs a command line inside; panics if it fails.
    pub fn sh(&self, line: &str) -> String {
        let words = line.to_owned();
        self.run(move || {
            let out = Command::new("sh").args(["-c", &words]).output().unwrap();
            let text = String::from_utf8_lossy(&out.stdout).into_owned();
            assert!(out.status.success(), "{words}: {text}{}", String::from_utf8_lossy(&out.stderr));
            text
        })
    }

    /// Joins two namespaces by a veth pair.
    pub fn wire(&self, name: &str, address: &str, other: &Ns, other_name: &str, other_address: &str) {
        let tid = other.tid;
        self.sh(&format!("ip link add {name} type veth peer name {other_name} netns {tid}"));
        self.sh(&format!("ip addr add {address} dev {name} && ip link set {name} up"));
        other.sh(&format!("ip addr add {other_address} dev {other_name} && ip link set {other_name} up"));
    }

    /// Starts a TCP server that answers each connection with `greeting`, a space and the client's address.
    pub fn serve(&self, address: &str, greeting: &str) -> Served {
        let (address, greeting) = (address.to_owned(), greeting.to_owned());
        let listener = self.run(move || TcpListener::bind(&address).unwrap());
        let end = Arc::new(AtomicBool::new(false));
        let stop = end.clone();
        let thread = thread::spawn(move || {
            listener.set_nonblocking(true).unwrap();
            while !stop.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((mut stream, peer)) => {
                        let _ = write!(stream, "{greeting} {}", peer.ip());
                    }
                    Err(_) => thread::sleep(Duration::from_millis(2)),
                }
            }
        });
        Served { end, thread: Some(thread) }
    }

    /// What a TCP server answers to a client in here, or the error.
    pub fn ask(&self, ip: impl Into<IpAddr>, port: u16) -> Result<String, std::io::Error> {
        let to = SocketAddr::new(ip.into(), port);
        self.run(move || {
            let mut stream = TcpStream::connect_timeout(&to, WAIT)?;
            stream.set_read_timeout(Some(WAIT))?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        })
    }

    pub fn udp(&self, address: &str) -> UdpSocket {
        let address = address.to_owned();
        let socket = self.run(move || UdpSocket::bind(&address).unwrap());
        socket.set_read_timeout(Some(WAIT)).unwrap();
        socket
    }
}

impl Drop for Ns {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A running server; ends when dropped.
pub struct Served {
    end: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The configuration of node `n` (its pods in 10.42.n.0/24).
pub fn config(tag: &str, n: u8) -> NetConfig {
    NetConfig {
        tag: Tag::parse(tag).unwrap(),
        node_cidr: format!("10.42.{n}.0/24").parse().unwrap(),
        cluster_cidr: "10.42.0.0/16".parse().unwrap(),
        service_cidr: "10.43.0.0/16".parse().unwrap(),
        dns: Some(Ipv4Addr::new(10, 43, 0, 10)),
        mtu: None,
        masquerade: true,
    }
}
