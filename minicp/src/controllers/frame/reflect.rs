//! Reflectors: one list and watch per resource, told to whoever keeps what it says.

use crate::controllers::seam::{Api, Event};
use mote_api::tree::Value;
use std::rc::Rc;
use std::time::Duration;

/// First and longest wait after a failed list or watch.
const RETRY_MS: (u64, u64) = (50, 10_000);

/// Keeps what a reflector tells.
pub trait Keeper {
    /// One object of a list. They come one by one: all of a large resource at once, as trees, would cost several times its size.
    fn found(&self, object: &Rc<Value>);
    /// The list is at its end, it was made at `revision`; what it lacked is gone.
    fn listed(&self, revision: u64);
    fn apply(&self, event: &Event);
}

/// Lists, then follows the watch; lists again when the watch ends or fell behind. Never returns.
pub async fn reflect(api: Rc<dyn Api>, res: Rc<str>, keeper: Rc<dyn Keeper>) {
    let mut wait = RETRY_MS.0;
    loop {
        match follow(&*api, &res, &*keeper).await {
            Ok(()) => wait = RETRY_MS.0,
            Err(status) => {
                log::warn!("watch {res}: {status}; again in {wait} ms");
                wait = wait.saturating_mul(2).min(RETRY_MS.1);
            }
        }
        tokio::time::sleep(Duration::from_millis(wait)).await;
    }
}

async fn follow(api: &dyn Api, res: &str, keeper: &dyn Keeper) -> Result<(), mote_api::status::Status> {
    let revision = api.each(res, &mut |object| keeper.found(object)).await?;
    keeper.listed(revision);
    let mut watch = api.watch(res, revision)?;
    while let Some(event) = watch.next().await {
        keeper.apply(&event);
    }
    Ok(())
}
