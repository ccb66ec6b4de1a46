//! What the programs that load a server share: so many clients at once, what their requests took, and one line of JSON about it.

use std::error::Error;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

pub(crate) type Fault = Box<dyn Error>;

/// What requests took, as the figures that are printed; all of them took `whole` together.
pub(crate) fn spread(mut took: Vec<Duration>, whole: Duration) -> Value {
    took.sort_unstable();
    let at = |part: usize| took.get(took.len() * part / 100).map_or(0.0, |d| d.as_secs_f64() * 1000.0);
    let rate = took.len() as f64 / whole.as_secs_f64();
    json!({"count": took.len(), "per_second": rate, "median_ms": at(50), "p99_ms": at(99)})
}

/// All clients at once, each with its share of `requests`: requests per second over all, and what one took.
pub(crate) async fn run<F>(clients: usize, requests: usize, client: impl Fn(usize, usize) -> F) -> Result<Value, Fault>
where
    F: Future<Output = Result<Vec<Duration>, Fault>> + 'static,
{
    let began = Instant::now();
    let mut running = tokio::task::JoinSet::new();
    for k in 0..clients {
        let one = client(k, requests / clients.max(1));
        running.spawn_local(async move { one.await.map_err(|e| e.to_string()) });
    }
    let mut took = Vec::new();
    while let Some(done) = running.join_next().await {
        took.extend(done??);
    }
    Ok(spread(took, began.elapsed()))
}

/// Runs on this thread with the words of the command line; prints what it returns.
pub(crate) fn print(work: impl AsyncFnOnce(&[String]) -> Result<Value, Fault>) -> Result<(), Fault> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    println!("{}", tokio::task::LocalSet::new().block_on(&runtime, work(&arguments))?);
    Ok(())
}
