//! Many watchers of one object: how long each change takes to reach all of them.

use std::cell::{Cell, RefCell};
use std::io::BufRead;
use std::rc::Rc;
use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::Notify;

use crate::clients::{Fault, spread};
use crate::{PATH, Target, ask, create};

/// How long one change may take to reach everybody.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Shared {
    sent: Cell<Option<Instant>>,
    seen: Cell<usize>,
    took: RefCell<Vec<Duration>>,
    all: Notify,
}

/// Counts the events of one watcher by their line ends; what is in them is the same for all.
async fn read(mut body: Incoming, watchers: usize, shared: Rc<Shared>) -> Result<(), Fault> {
    while let Some(frame) = body.frame().await {
        let frame = frame?;
        let lines = frame.data_ref().map_or(0, |d| d.iter().filter(|b| **b == b'\n').count());
        for _ in 0..lines {
            if let Some(sent) = shared.sent.get() {
                shared.took.borrow_mut().push(sent.elapsed());
            }
            shared.seen.set(shared.seen.get() + 1);
            if shared.seen.get() == watchers {
                shared.all.notify_one();
            }
        }
    }
    Ok(())
}

/// Opens the watches, says so on stdout, waits for a line on stdin (whoever measures memory does it then), and changes the object `changes` times.
pub(crate) async fn watch(target: &Target, watchers: usize, changes: usize) -> Result<serde_json::Value, Fault> {
    let mut sender = target.connect().await?;
    let name = format!("watched-{}", std::process::id());
    create(&mut sender, &name, 100).await?;
    let shared = Rc::new(Shared::default());
    let query = format!("{PATH}?watch=true&fieldSelector=metadata.name%3D{name}&timeoutSeconds=600");
    for _ in 0..watchers {
        let mut own = target.connect().await?;
        let body = ask(&mut own, "GET", &query, String::new()).await?.into_body();
        let shared = shared.clone();
        tokio::task::spawn_local(async move {
            let read = read(body, watchers, shared).await;
            // The connection lives as long as its sender.
            drop(own);
            read.map_err(|e| e.to_string())
        });
    }
    // Each begins with the object as it is.
    tokio::time::timeout(PATIENCE, shared.all.notified()).await?;
    println!("{{\"open\":{watchers}}}");
    std::io::stdin().lock().read_line(&mut String::new())?;
    let began = Instant::now();
    for change in 0..changes {
        shared.seen.set(0);
        shared.sent.set(Some(Instant::now()));
        let body = serde_json::json!({"data": {"change": change.to_string()}}).to_string();
        ask(&mut sender, "PATCH", &format!("{PATH}/{name}"), body).await?.into_body().collect().await?;
        tokio::time::timeout(PATIENCE, shared.all.notified()).await?;
    }
    Ok(spread(shared.took.take(), began.elapsed()))
}
