//! Pack: folders and files become an image, the same bytes every time.

use std::path::PathBuf;

use crate::ImageConfig;

/// What to build.
pub struct PackSpec {
    pub config: ImageConfig,
    /// Base first.
    pub layers: Vec<PackLayer>,
    pub compression: Compression,
    /// Seconds since 1970 given to every file (SOURCE_DATE_EPOCH); `None` keeps each file's own time.
    pub mtime: Option<i64>,
}

/// Source of one layer.
pub enum PackLayer {
    /// Everything below a folder, with owners, modes and extended attributes as they are.
    Dir(PathBuf),
    /// `(path in the image, file on this machine, mode)`, owned by root; parents are made 0755.
    Files(Vec<(String, PathBuf, u32)>),
}

/// How layers are compressed for registries and archives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Compression {
    None,
    Gzip,
}
