//! Where bytes lie: in memory or in a range of a file, read when they are asked for.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes that can be read by position. Reading is cheap to start: nothing is held in memory.
pub trait Storage: Send + Sync + fmt::Debug {
    /// Number of bytes.
    fn len(&self) -> u64;

    /// Whether there are no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `buffer` with the bytes from `offset` on.
    ///
    /// # Errors
    /// When the range is not there or can't be read.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
}

impl Storage for Vec<u8> {
    fn len(&self) -> u64 {
        Vec::len(self) as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let source = usize::try_from(offset)
            .ok()
            .and_then(|start| self.get(start..start.checked_add(buffer.len())?))
            .ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        buffer.copy_from_slice(source);
        Ok(())
    }
}

/// An open file that is read by position. Positioned reads, not a mapping: a file that is cut short meanwhile is an
/// error and not a crash, and pages that were read do not count as this program's memory.
pub struct FileBytes {
    file: File,
    path: PathBuf,
    len: u64,
}

impl FileBytes {
    /// Opens a file.
    ///
    /// # Errors
    /// When it can't be opened or is no regular file.
    pub fn open(path: &Path) -> io::Result<Arc<FileBytes>> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, "is a folder"));
        }
        Ok(Arc::new(FileBytes { file, path: path.to_owned(), len: metadata.len() }))
    }

    /// The path that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The range `start..start + len` of this file.
    ///
    /// # Errors
    /// When the file is shorter.
    pub fn range(self: &Arc<Self>, start: u64, len: u64) -> io::Result<Arc<dyn Storage>> {
        let file: Arc<dyn Storage> = self.clone();
        range(&file, start, len)
    }
}

impl fmt::Debug for FileBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileBytes({}, {} bytes)", self.path.display(), self.len)
    }
}

impl Storage for FileBytes {
    fn len(&self) -> u64 {
        self.len
    }

    #[cfg(unix)]
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(&self.file, buffer, offset)
    }

    #[cfg(windows)]
    fn read_at(&self, mut offset: u64, mut buffer: &mut [u8]) -> io::Result<()> {
        while !buffer.is_empty() {
            let read = std::os::windows::fs::FileExt::seek_read(&self.file, buffer, offset)?;
            if read == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
            }
            buffer = &mut buffer[read..];
            offset += read as u64;
        }
        Ok(())
    }
}

/// The range `start..start + len` of a storage.
///
/// # Errors
/// When the storage is shorter.
pub fn range(of: &Arc<dyn Storage>, start: u64, len: u64) -> io::Result<Arc<dyn Storage>> {
    match start.checked_add(len) {
        Some(end) if end <= of.len() => Ok(Arc::new(Range { of: of.clone(), start, len })),
        _ => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
    }
}

#[derive(Debug)]
struct Range {
    of: Arc<dyn Storage>,
    start: u64,
    len: u64,
}

impl Storage for Range {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        match offset.checked_add(buffer.len() as u64) {
            Some(end) if end <= self.len => self.of.read_at(self.start + offset, buffer),
            _ => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
        }
    }
}

/// Elements with their bytes in reverse order: big-endian ones as little-endian.
#[derive(Debug)]
pub struct Swapped {
    /// The elements.
    pub bytes: Arc<dyn Storage>,
    /// Bytes of one element.
    pub size: usize,
}

impl Storage for Swapped {
    fn len(&self) -> u64 {
        self.bytes.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let size = self.size as u64;
        let end = offset.checked_add(buffer.len() as u64).filter(|&end| end <= self.len());
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?.next_multiple_of(size);
        let start = offset - offset % size;
        let mut whole = vec![0; (end - start) as usize];
        self.bytes.read_at(start, &mut whole)?;
        whole.chunks_mut(self.size).for_each(<[u8]>::reverse);
        let first = (offset - start) as usize;
        let part = whole.get(first..first + buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(part);
        Ok(())
    }
}
