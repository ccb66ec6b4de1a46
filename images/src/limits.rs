//! Every limit of this crate in one table. What lies beyond is refused with an error that names the limit; nothing grows silently.

/// Bytes of one manifest, index or image configuration (the distribution specification asks registries for 4 MiB).
pub const DOCUMENT_BYTES_MAX: u64 = 4 << 20;
/// Layers of one image. Overlayfs takes 500 lower folders; its option string before kernel 6.8 about 40 to 120 of them.
pub const LAYERS_MAX: usize = 127;
/// Manifests that one index may list.
pub const INDEX_ENTRIES_MAX: usize = 1024;
/// Bytes of one compressed layer.
pub const LAYER_BLOB_BYTES_MAX: u64 = 64 << 30;
/// Bytes of one layer's archive once inflated, and of the files it makes.
pub const LAYER_TAR_BYTES_MAX: u64 = 128 << 30;
/// Inflated bytes per compressed byte beyond which a layer of more than [`BOMB_FLOOR_BYTES`] is called a bomb (deflate ends at 1032, zstd
/// far beyond; real layers stay below 50).
pub const INFLATE_RATIO_MAX: u64 = 500;
/// Below this many inflated bytes the ratio is not judged: a zstd frame of zeros is no danger yet.
pub const BOMB_FLOOR_BYTES: u64 = 1 << 30;
/// Entries of one layer.
pub const ENTRIES_MAX: u64 = 4_000_000;
/// Bytes of one path inside a layer (PATH_MAX of Linux, path_resolution(7)).
pub const PATH_BYTES_MAX: usize = 4096;
/// Components of one path inside a layer.
pub const PATH_DEPTH_MAX: usize = 256;
/// Bytes of one path component (NAME_MAX).
pub const NAME_BYTES_MAX: usize = 255;
/// Bytes of one PAX or GNU extension header.
pub const EXTENSION_BYTES_MAX: u64 = 1 << 20;
/// Extension headers in front of one entry.
pub const EXTENSIONS_PER_ENTRY_MAX: usize = 8;
/// Extended attributes of one entry (bytes are bounded by the PAX header).
pub const XATTRS_PER_ENTRY_MAX: usize = 256;
/// Data segments of one sparse file.
pub const SPARSE_SEGMENTS_MAX: usize = 64 * 1024;
/// Hard links of one layer to files of the layers below.
pub const LINKS_BELOW_MAX: usize = 64 * 1024;
/// Window of a zstd frame (what the reference decoder allows without a flag).
pub const ZSTD_WINDOW_BYTES_MAX: u64 = 128 << 20;
/// Window that every thread may have at once; one decoder at a time has a larger one (16 MiB are all a pull should need).
pub const ZSTD_WINDOW_SHARED_BYTES_MAX: u64 = 4 << 20;
/// Layers that are fetched and unpacked at once, by three threads each.
pub const UNPACK_THREADS_MAX: usize = 4;
/// Bytes of the buffer between two stages of a layer's way to disk.
pub const STAGE_BUFFER_BYTES: usize = 32 << 10;
/// Such buffers of inflated bytes between the threads that fetch, hash and write a layer: made when there is something to put into them.
pub const AHEAD_BUFFERS: usize = 8;
/// Redirects of one request.
pub const REDIRECTS_MAX: usize = 5;
/// Attempts at one request or one stretch of a blob without a single byte of progress.
pub const ATTEMPTS_MAX: u32 = 5;
/// Bytes of an error body or a token answer that are read.
pub const ANSWER_BYTES_MAX: u64 = 256 << 10;
/// Bytes of a blob that is uploaded by one request; a larger one can go on where its upload was cut.
pub const UPLOAD_WHOLE_BYTES_MAX: u64 = 1 << 20;
/// Bytes of /etc/hosts, resolv.conf and registry configuration that are read.
pub const HOST_FILE_BYTES_MAX: u64 = 1 << 20;
/// Name servers of resolv.conf that are asked (MAXNS of resolv.conf(5)).
pub const NAME_SERVERS_MAX: usize = 3;
/// Bytes of a record of the store (image or layer).
pub const RECORD_BYTES_MAX: u64 = 1 << 20;
/// A layer that arrives within this time is fetched from its start when a pull is begun again; one that takes longer is spooled.
pub const SPOOL_WORTH: std::time::Duration = std::time::Duration::from_secs(2);
/// A power cut costs at most so much time of a spooled transfer (each step is two waits for the disk).
pub const SPOOL_SYNC_EVERY: std::time::Duration = std::time::Duration::from_secs(10);
/// Bytes between two looks at whether spooling is worth it.
pub const JUDGE_EVERY_BYTES: u64 = 1 << 20;
/// Bytes of all partial layers; the oldest go first.
pub const PARTIALS_BYTES_MAX: u64 = 4 << 30;
/// A partial layer that nobody asked for so long goes.
pub const PARTIAL_AGE_MAX: std::time::Duration = std::time::Duration::from_secs(7 * 24 * 3600);
/// Size of a disk on which compressed layers are kept beside the unpacked ones.
pub const ROOMY_DISK_BYTES: u64 = 512 << 30;
/// Places (mirrors and the registry itself) that are asked for one repository.
pub const ENDPOINTS_MAX: usize = 16;
/// Bytes of a credential helper's answer.
pub const HELPER_BYTES_MAX: u64 = 64 << 10;
/// Seconds a credential helper may take.
pub const HELPER_SECONDS_MAX: u64 = 30;
/// Levels of indexes within indexes.
pub const INDEX_DEPTH_MAX: usize = 4;
/// Indexes within an index that are opened in search of a platform.
pub const INDEX_DOCUMENTS_MAX: usize = 16;
/// Signatures of one image that are looked at.
pub const SIGNATURES_MAX: usize = 64;
/// Bytes of one signed document or bundle (with its proofs some ten thousand).
pub const SIGNATURE_BYTES_MAX: u64 = 256 << 10;
