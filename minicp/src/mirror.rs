//! A part of the store in another form in memory, exactly as new as the store is when it is asked for.
//!
//! There is no task: a mirror is brought up to date by who reads it, from a watcher's queue. So what was just written holds at once, and nothing
//! wakes up for those who do not ask.

use std::cell::{Ref, RefCell};

use crate::store::{ReadError, Store, Watcher};

/// What a mirror makes of objects. `key` is without the prefix.
pub(crate) trait Form: Default {
    fn put(&mut self, key: &str, value: &[u8]);
    fn remove(&mut self, key: &str);
}

/// The form of all keys under one prefix.
pub(crate) struct Mirror<F> {
    prefix: &'static str,
    watcher: RefCell<Option<Watcher>>,
    form: RefCell<F>,
}

impl<F: Form> Mirror<F> {
    pub(crate) fn new(prefix: &'static str) -> Mirror<F> {
        Mirror { prefix, watcher: RefCell::default(), form: RefCell::default() }
    }
    /// As the store is now. Do not hold it over an await.
    pub(crate) async fn read(&self, store: &dyn Store) -> Result<Ref<'_, F>, ReadError> {
        if !self.catch_up() {
            let range = store.range(self.prefix, "", None, 0).await?;
            let watcher = store.watch(self.prefix, range.revision)?;
            let mut form = F::default();
            for (key, entry) in &range.entries {
                form.put(key.strip_prefix(self.prefix).unwrap_or(key), &entry.value);
            }
            *self.form.borrow_mut() = form;
            *self.watcher.borrow_mut() = Some(watcher);
            self.catch_up();
        }
        Ok(self.form.borrow())
    }
    /// False: the queue is not there or was cut off.
    fn catch_up(&self) -> bool {
        let mut watcher = self.watcher.borrow_mut();
        let Some(queue) = watcher.as_mut() else { return false };
        while let Some(next) = queue.try_next() {
            let Ok(change) = next else {
                *watcher = None;
                return false;
            };
            let key = change.key.strip_prefix(self.prefix).unwrap_or(&change.key);
            match &change.value {
                Some(entry) => self.form.borrow_mut().put(key, &entry.value),
                None => self.form.borrow_mut().remove(key),
            }
        }
        true
    }
}
