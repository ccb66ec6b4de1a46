//! The letter box of a pod's worker: the newest wish, and what its tasks tell it. Whoever has it can wake the worker; nobody but the
//! worker reads it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use mote_images::Image;
use tokio::sync::Notify;

use super::model::{Pod, Probed, Source};

/// What tasks of the pod tell its worker.
pub enum News {
    /// An image is here, or not to be had (the kubelet's word and the reason).
    Image {
        /// For which container.
        container: String,
        /// What came of it.
        result: Result<Box<Image>, (&'static str, String)>,
    },
    /// The probes of a container have found something new.
    Probed {
        /// Container id.
        id: String,
        /// What.
        probed: Probed,
    },
    /// The pod network is there now.
    Network,
}

/// The one place through which the rest of the agent reaches a worker.
pub struct Slot {
    pod: RefCell<Rc<Pod>>,
    news: RefCell<Vec<News>>,
    vanished: Cell<bool>,
    wake: Notify,
}

impl Slot {
    /// With the first wish.
    pub fn new(pod: Pod) -> Rc<Slot> {
        Rc::new(Slot {
            pod: RefCell::new(Rc::new(pod)),
            news: RefCell::default(),
            vanished: Cell::new(false),
            wake: Notify::new(),
        })
    }

    /// Look again.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// A new wish.
    pub fn want(&self, pod: Pod) {
        *self.pod.borrow_mut() = Rc::new(pod);
        self.vanished.set(false);
        self.wake();
    }

    /// Nobody wants it any more.
    pub fn vanish(&self) {
        self.vanished.set(true);
        self.wake();
    }

    /// News for the worker.
    pub fn tell(&self, news: News) {
        self.news.borrow_mut().push(news);
        self.wake();
    }

    /// Who wants it.
    pub fn source(&self) -> Source {
        self.pod.borrow().source
    }

    /// The news since the last look.
    pub fn take(&self) -> Vec<News> {
        self.news.take()
    }

    /// Whether nobody wants the pod any more.
    pub fn vanished(&self) -> bool {
        self.vanished.get()
    }

    /// Ends when there is something to look at.
    pub async fn woken(&self) {
        self.wake.notified().await;
    }

    /// The present wish.
    pub fn pod(&self) -> Rc<Pod> {
        self.pod.borrow().clone()
    }
}
