//! Writing on a thread of its own: while one piece is written, the next is read and put in order.

use std::io::{self, Write};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;

/// Bytes that change hands at a time.
const PIECE: usize = 1 << 20;
/// Pieces that wait to be written.
const WAITING: usize = 2;

/// Which side has failed.
#[derive(Debug)]
pub enum Failure {
    /// What makes the bytes.
    Made(io::Error),
    /// What takes them.
    Written(io::Error),
}

/// Writes to `out` what `make` writes.
///
/// # Errors
/// Those of either side.
pub fn through<T>(
    out: &mut (dyn Write + Send),
    make: impl FnOnce(&mut dyn Write) -> io::Result<T>,
) -> Result<T, Failure> {
    thread::scope(|scope| {
        let (send, full) = mpsc::sync_channel::<Vec<u8>>(WAITING);
        let (give_back, empty) = mpsc::channel();
        let writer = scope.spawn(move || -> io::Result<()> {
            for piece in full {
                out.write_all(&piece)?;
                // Nobody wants it back at the end.
                let _ = give_back.send(piece);
            }
            out.flush()
        });
        let mut pipe = Pipe { piece: Vec::with_capacity(PIECE), send, empty };
        let made = make(&mut pipe).and_then(|made| pipe.flush().map(|()| made));
        drop(pipe);
        let written = writer.join().unwrap_or_else(|_| Err(io::Error::other("the writing thread has ended")));
        // When the writer has failed, all that the other side knows is that nobody takes its bytes.
        written.map_err(Failure::Written)?;
        made.map_err(Failure::Made)
    })
}

struct Pipe {
    piece: Vec<u8>,
    send: SyncSender<Vec<u8>>,
    empty: Receiver<Vec<u8>>,
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let part = bytes.get(..PIECE - self.piece.len()).unwrap_or(bytes);
        self.piece.extend_from_slice(part);
        if self.piece.len() == PIECE {
            self.flush()?;
        }
        Ok(part.len())
    }

    /// Hands over what there is.
    fn flush(&mut self) -> io::Result<()> {
        let mut next = self.empty.try_recv().unwrap_or_else(|_| Vec::with_capacity(PIECE));
        next.clear();
        let piece = std::mem::replace(&mut self.piece, next);
        self.send.send(piece).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_arrives_in_order() {
        let bytes: Vec<u8> = (0..3 * PIECE + 17).map(|i| (i % 251) as u8).collect();
        let mut out = Vec::new();
        let made = through(&mut out, |pipe| {
            bytes.chunks(PIECE / 2 + 5).try_for_each(|chunk| pipe.write_all(chunk))?;
            Ok(7)
        });
        assert!(matches!(made, Ok(7)));
        assert!(out == bytes);
    }

    #[test]
    fn either_side_may_fail() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::Error::other("full"))
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let written = through(&mut Full, |pipe| pipe.write_all(&vec![0; 9 * PIECE]));
        assert!(matches!(written, Err(Failure::Written(error)) if error.to_string() == "full"));
        let made = through(&mut Vec::new(), |_| Err::<(), _>(io::Error::other("unread")));
        assert!(matches!(made, Err(Failure::Made(error)) if error.to_string() == "unread"));
    }
}
