//! Files that appear under their name only when they are complete.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::diagnostic::{Error, Problem, Result};

/// A file in the making: a temporary file in the folder of its target, removed when it is dropped uncommitted.
#[derive(Debug)]
pub struct AtomicFile {
    file: BufWriter<NamedTempFile>,
    path: PathBuf,
}

impl AtomicFile {
    /// Begins a file that will be called `path`; what has that name stays until [`AtomicFile::commit`].
    ///
    /// # Errors
    /// When the folder does not exist or can't be written to.
    pub fn create(path: &Path) -> Result<AtomicFile> {
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        if path.is_dir() {
            return Err(Problem::new("is a folder, expected the name of a file to write").file(path).into());
        }
        let mut builder = tempfile::Builder::new();
        builder.prefix(".modelport-");
        // The permissions of any new file (the process' mask applies), not the private ones of a temporary file.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let file = builder.tempfile_in(folder).map_err(|error| {
            let folder = folder.display();
            let reason = match error.kind() {
                io::ErrorKind::NotFound => format!("there is no folder {folder}"),
                io::ErrorKind::NotADirectory => format!("{folder} is no folder"),
                io::ErrorKind::PermissionDenied => format!("you may not write to the folder {folder}"),
                kind => format!("no file can be made in {folder}: {kind}"),
            };
            Problem::new(format!("can't be written: {reason}")).file(path)
        })?;
        Ok(AtomicFile { file: BufWriter::with_capacity(1 << 16, file), path: path.to_owned() })
    }

    /// The name that the file will have.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The temporary file itself, for writers that seek.
    ///
    /// # Errors
    /// When what was written so far can't be flushed.
    pub fn as_file_mut(&mut self) -> io::Result<&mut File> {
        self.file.flush()?;
        Ok(self.file.get_mut().as_file_mut())
    }

    /// Gives the file its name; a file of that name is replaced.
    ///
    /// # Errors
    /// When the last bytes can't be written or the file can't be renamed.
    pub fn commit(self) -> Result<()> {
        let AtomicFile { file, path } = self;
        let failed =
            |error: io::Error| -> Error { Problem::new(format!("can't be written: {error}")).file(&path).into() };
        let file = file.into_inner().map_err(|error| failed(error.into_error()))?;
        file.persist(&path).map_err(|error| failed(error.error))?;
        Ok(())
    }
}

impl Write for AtomicFile {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.file.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_appears_when_it_is_complete() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        let names = || std::fs::read_dir(folder.path()).unwrap().count();

        let mut file = AtomicFile::create(&path).unwrap();
        file.write_all(b"half").unwrap();
        assert!(!path.exists());
        drop(file);
        assert_eq!(names(), 0);

        let mut file = AtomicFile::create(&path).unwrap();
        file.write_all(b"whole").unwrap();
        file.commit().unwrap();
        assert_eq!((std::fs::read(&path).unwrap().as_slice(), names()), (b"whole".as_slice(), 1));
    }

    #[test]
    fn a_missing_folder_is_named() {
        let error = AtomicFile::create(Path::new("/nonexistent/x.npy")).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/x.npy") && error.contains("there is no folder /nonexistent"), "{error}");
    }
}
