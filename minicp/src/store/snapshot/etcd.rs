//! Backups of an etcd, and into one: also the way from the embedded store to etcd and back.

use bytes::Bytes;

use super::{Kept, Snapshot, SnapshotError};
use crate::store::etcd::{EtcdConfig, EtcdStore};
use crate::store::{Class, Guard, Op, Revision, Store, Txn};

/// Objects of one transaction; etcd takes 128 operations.
const BATCH: usize = 100;
/// Bytes of values of one transaction (or one value); etcd takes requests of 1.5 MiB, base64 and guards included.
const BATCH_BYTES: usize = 512 << 10;

fn failed(why: impl std::fmt::Display) -> SnapshotError {
    SnapshotError::Etcd(why.to_string())
}

async fn open(config: &EtcdConfig) -> Result<EtcdStore, SnapshotError> {
    // Whoever serves from it sees to its history.
    let config = EtcdConfig { compact_every: None, ..config.clone() };
    EtcdStore::open(&config).await.map_err(failed)
}

/// The first transaction's worth.
fn batch(rest: &[Kept]) -> &[Kept] {
    let mut bytes = 0;
    let fits = |kept: &&Kept| {
        bytes += kept.value.len();
        bytes <= BATCH_BYTES
    };
    let count = rest.iter().take(BATCH).take_while(fits).count().max(1);
    rest.get(..count).unwrap_or(rest)
}

impl Snapshot {
    /// Of what an etcd holds at this moment, whether servers run on it or not. Needs a `LocalSet`.
    pub async fn of_etcd(config: &EtcdConfig) -> Result<Snapshot, SnapshotError> {
        let store = open(config).await?;
        let range = store.range("/registry/", "", None, 0).await;
        store.close().await;
        Ok(Self::of_range(&range.map_err(failed)?))
    }
    /// Into an etcd that holds no objects under its prefix yet. Revisions are etcd's own from then on. Returns the last. Needs a `LocalSet`.
    pub async fn restore_etcd(&self, config: &EtcdConfig) -> Result<Revision, SnapshotError> {
        let store = open(config).await?;
        let done = self.fill(&store, config).await;
        store.close().await;
        done
    }
    async fn fill(&self, store: &EtcdStore, config: &EtcdConfig) -> Result<Revision, SnapshotError> {
        let there = store.range("/registry/", "", None, 1).await.map_err(failed)?;
        if let Some((key, _)) = there.entries.first() {
            let prefix = &config.prefix;
            return Err(failed(format!(
                "{key} and more is under {prefix} already; restore under another prefix, or empty this one"
            )));
        }
        let (mut rest, mut last) = (self.entries.as_slice(), there.revision);
        while !rest.is_empty() {
            let now = batch(rest);
            let keys = || now.iter().map(|kept| std::rc::Rc::<str>::from(&*kept.key));
            let guards = keys().map(Guard::Absent).collect();
            let values = now.iter().map(|kept| Bytes::clone(&kept.value));
            let ops = keys().zip(values).map(|(key, value)| Op::Put(key, value)).collect();
            last = store.commit(Txn { guards, ops, class: Class::Durable }).await.map_err(failed)?;
            rest = rest.get(now.len()..).unwrap_or_default();
        }
        Ok(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_bounded() {
        let kept = |bytes: usize| Kept {
            key: "/registry/a".into(),
            created: Revision(1),
            modified: Revision(1),
            value: vec![b'x'; bytes].into(),
        };
        for (sizes, want) in [
            (vec![1; 250], 100),
            (vec![1; 3], 3),
            (vec![BATCH_BYTES / 2; 3], 2),
            (vec![BATCH_BYTES + 1, 1], 1),
            (vec![1, BATCH_BYTES], 1),
        ] {
            let all: Vec<Kept> = sizes.iter().map(|n| kept(*n)).collect();
            assert_eq!(batch(&all).len(), want, "{} of {}", all.len(), sizes[0]);
        }
    }
}
