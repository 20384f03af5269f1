// SPDX-License-Identifier: Apache-2.0
//! Makes tar archives byte by byte, good ones and others.

/// One header; tests name only what they are about.
pub(crate) struct Header<'a> {
    pub(crate) path: &'a [u8],
    pub(crate) kind: u8,
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    pub(crate) size: u64,
    pub(crate) mtime: u64,
    pub(crate) link: &'a [u8],
    pub(crate) device: (u64, u64),
    pub(crate) magic: &'a [u8; 8],
}

impl Default for Header<'_> {
    fn default() -> Self {
        Header {
            path: b"",
            kind: b'0',
            mode: 0o644,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: 0,
            link: b"",
            device: (0, 0),
            magic: b"ustar\x0000",
        }
    }
}

impl Header<'_> {
    /// The block without its checksum, for tests that change it further.
    pub(crate) fn unsealed(&self) -> [u8; 512] {
        let mut block = [0; 512];
        let mut put = |at: usize, bytes: &[u8]| block[at..][..bytes.len()].copy_from_slice(bytes);
        put(0, self.path);
        put(100, &octal(self.mode.into(), 8));
        put(108, &octal(self.uid, 8));
        put(116, &octal(self.gid, 8));
        put(124, &octal(self.size, 12));
        put(136, &octal(self.mtime, 12));
        put(156, &[self.kind]);
        put(157, self.link);
        put(257, self.magic);
        put(329, &octal(self.device.0, 8));
        put(337, &octal(self.device.1, 8));
        block
    }
}

/// Puts the checksum into a header.
pub(crate) fn seal(mut block: [u8; 512]) -> [u8; 512] {
    block[148..156].fill(b' ');
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    block[148..155].copy_from_slice(&octal(sum, 7));
    block
}

/// A number field; base-256 where octal does not reach.
fn octal(value: u64, len: usize) -> Vec<u8> {
    let text = format!("{value:0>width$o}\0", width = len - 1);
    if text.len() == len {
        return text.into_bytes();
    }
    let mut bytes = vec![0; len];
    bytes[0] = 0x80;
    for (at, byte) in value.to_be_bytes().iter().rev().enumerate().take(len - 1) {
        bytes[len - 1 - at] = *byte;
    }
    bytes
}

/// An archive under construction.
#[derive(Clone, Default)]
pub(crate) struct Archive(pub(crate) Vec<u8>);

impl Archive {
    pub(crate) fn new() -> Archive {
        Archive::default()
    }

    /// Adds a header and data as they are; a path or link too long for its field goes before in
    /// GNU's way.
    pub(crate) fn entry(mut self, header: Header<'_>, data: &[u8]) -> Archive {
        let Header { path, link, .. } = header;
        if path.len() > 100 {
            self = self.extension(b'L', &[path, b"\0"].concat());
        }
        if link.len() > 100 {
            self = self.extension(b'K', &[link, b"\0"].concat());
        }
        let cut = |text: &'_ [u8]| text[..text.len().min(100)].to_vec();
        let (path, link) = (cut(path), cut(link));
        let header = Header { path: &path, link: &link, ..header };
        self.0.extend_from_slice(&seal(header.unsealed()));
        self.data(data)
    }

    pub(crate) fn file(self, path: &str, content: &[u8]) -> Archive {
        let size = content.len() as u64;
        self.entry(Header { path: path.as_bytes(), size, ..Header::default() }, content)
    }

    pub(crate) fn dir(self, path: &str, mode: u32) -> Archive {
        let path = path.as_bytes();
        self.entry(Header { path, kind: b'5', mode, ..Header::default() }, b"")
    }

    pub(crate) fn symlink(self, path: &str, target: &str) -> Archive {
        let (path, link) = (path.as_bytes(), target.as_bytes());
        self.entry(Header { path, kind: b'2', mode: 0o777, link, ..Header::default() }, b"")
    }

    pub(crate) fn link(self, path: &str, target: &str) -> Archive {
        let (path, link) = (path.as_bytes(), target.as_bytes());
        self.entry(Header { path, kind: b'1', link, ..Header::default() }, b"")
    }

    /// A PAX header for the next entry.
    pub(crate) fn pax(self, records: &[(&str, &[u8])]) -> Archive {
        self.extension(b'x', &pax_body(records))
    }

    /// A header that is there for others.
    pub(crate) fn extension(self, kind: u8, body: &[u8]) -> Archive {
        let size = body.len() as u64;
        self.entry(Header { path: b"ext", kind, size, ..Header::default() }, body)
    }

    /// Bytes filled up to a whole block.
    pub(crate) fn data(mut self, data: &[u8]) -> Archive {
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    /// The archive with its end mark.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

/// The records of a PAX header.
pub(crate) fn pax_body(records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (keyword, value) in records {
        let rest = keyword.len() + value.len() + 3;
        let mut len = rest;
        while len != rest + len.to_string().len() {
            len = rest + len.to_string().len();
        }
        body.extend_from_slice(format!("{len} {keyword}=").as_bytes());
        body.extend_from_slice(value);
        body.push(b'\n');
    }
    body
}
