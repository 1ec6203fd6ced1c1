//! Bounds on one rendering (DESIGN.md section 10); each refusal names the bound.

/// Bounds on one rendering.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one source file.
    pub file: u64,
    /// Files and directories that may be listed.
    pub files_per_tree: usize,
    /// Bytes read by one rendering, repeated reads counted once.
    pub bytes_read: u64,
    /// Resources in the result.
    pub resources: usize,
    /// Bytes of one manifest as JSON.
    pub manifest: usize,
    /// Bytes of all manifests as JSON.
    pub bundle: usize,
    /// Kustomizations inside one another, and directories inside one another.
    pub depth: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            file: 16 << 20,
            files_per_tree: 200_000,
            bytes_read: 256 << 20,
            resources: 10_000,
            manifest: 3 << 20,
            bundle: 64 << 20,
            depth: 64,
        }
    }
}
