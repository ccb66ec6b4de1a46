//! The objects of a definition that goes.

use std::rc::Rc;

use mote_api::kind::Kind;
use mote_api::meta;
use mote_api::status::Status;

use crate::api::request::WriteOptions;
use crate::api::words::{DeleteOptions, ListQuery};
use crate::api::{Api, object};

/// Objects held in memory at a time.
const PAGE: usize = 200;

/// Asks for the deletion of every object; gives how many are still there (held by finalizers of their own).
pub(super) async fn delete_all(api: &Rc<Api>, kind: &Rc<Kind>, options: &WriteOptions) -> Result<usize, Status> {
    let (mut after, mut left) = (String::new(), 0);
    loop {
        let page = ListQuery { limit: PAGE, after: after.clone(), ..ListQuery::all() };
        let listed = api.list(kind, "", &page).await?;
        let Some((last, _)) = listed.entries.last() else { return Ok(left) };
        after = last.to_string();
        for (_, entry) in &listed.entries {
            let object = object::decode(kind, entry);
            let (ns, name) = (meta::namespace(&object), meta::name(&object));
            match api.delete(kind, ns, name, &DeleteOptions::default(), options).await {
                Ok((_, gone)) => left += usize::from(!gone),
                Err(e) if e.is_not_found() => {}
                Err(e) => return Err(e),
            }
        }
    }
}
