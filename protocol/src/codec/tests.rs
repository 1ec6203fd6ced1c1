//! Golden bytes and seeded property tests of the frame codec.

use serde::Deserialize;

use super::*;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Message {
    Empty,
    Number(u64),
    Words { words: Vec<String>, flag: bool },
    Bytes(Vec<u8>),
}

/// SplitMix64: a seeded source, so that a failure prints a seed which repeats it.
struct Seeded(u64);

impl Seeded {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound.max(1)).unwrap()).unwrap()
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next().to_le_bytes()[0]).collect()
    }

    fn message(&mut self) -> Message {
        match self.below(4) {
            0 => Message::Empty,
            1 => Message::Number(self.next() >> self.below(64)),
            2 => Message::Words {
                words: (0..self.below(4)).map(|n| "w".repeat(n * 7)).collect(),
                flag: self.below(2) == 1,
            },
            _ => {
                let len = self.below(300);
                Message::Bytes(self.bytes(len))
            }
        }
    }
}

/// Feeds `input` in pieces chosen by `seeded`; what came out, and how it ended.
fn decode_all(input: &[u8], seeded: &mut Seeded) -> (Vec<Vec<u8>>, Result<(), CodecError>) {
    let mut decoder = FrameDecoder::new(MAX_FRAME);
    let mut frames = Vec::new();
    let mut at = 0;
    while at < input.len() {
        let end = input.len().min(at + 1 + seeded.below(64));
        match decoder.push(&input[at..end]) {
            Ok(taken) => at += taken,
            Err(error) => return (frames, Err(error)),
        }
        if let Some(frame) = decoder.pop() {
            frames.push(frame);
        }
    }
    (frames, decoder.finish())
}

#[test]
fn golden_bytes_of_a_frame() {
    let frame = encode(&Message::Number(300), MAX_FRAME).unwrap();
    // magic, version 1, length 4, checksum, then: variant 1, varint marker 251, 300 as u16.
    assert_eq!(hex(&frame), "574e444c010004000000b67b90e23074239301fb2c01");
    let frame = encode(&Message::Empty, MAX_FRAME).unwrap();
    assert_eq!(hex(&frame), "574e444c0100010000004568bd94cc06235700");
}

#[test]
fn golden_bytes_of_a_record() {
    let words = Message::Words { words: vec!["a".into(), "bc".into()], flag: true };
    let bytes = to_bytes(&words, 64).unwrap();
    assert_eq!(hex(&bytes), "0202016102626301");
    assert_eq!(from_bytes::<Message>(&bytes, 64).unwrap(), words);
}

#[test]
fn bytes_in_one_run_are_written_as_before() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Run {
        #[serde(with = "as_bytes")]
        bytes: Vec<u8>,
        after: u8,
    }
    for len in [0, 1, 300] {
        let run = Run { bytes: vec![200; len], after: 9 };
        let bytes = to_bytes(&run, 1024).unwrap();
        assert_eq!(bytes, to_bytes(&(vec![200_u8; len], 9_u8), 1024).unwrap());
        assert_eq!(from_bytes::<Run>(&bytes, 1024).unwrap(), run);
        assert!(from_bytes::<Run>(&bytes[..bytes.len() - 1], 1024).is_err());
    }
    let mut huge = vec![253];
    huge.extend_from_slice(&(1_u64 << 60).to_le_bytes());
    assert!(from_bytes::<Run>(&huge, 1024).is_err());
}

#[test]
fn any_split_gives_the_same_frames() {
    for seed in 0..200 {
        let mut seeded = Seeded(seed);
        let messages: Vec<Message> = (0..seeded.below(12)).map(|_| seeded.message()).collect();
        let input: Vec<u8> = messages.iter().flat_map(|message| encode(message, MAX_FRAME).unwrap()).collect();
        let (frames, end) = decode_all(&input, &mut seeded);
        assert_eq!(end, Ok(()), "seed {seed}");
        let decoded: Vec<Message> = frames.iter().map(|frame| decode_payload(frame).unwrap()).collect();
        assert_eq!(decoded, messages, "seed {seed}");
    }
}

#[test]
fn every_flipped_bit_is_detected() {
    let frame = encode(&Message::Bytes(vec![7; 40]), MAX_FRAME).unwrap();
    for bit in 0..frame.len() * 8 {
        let mut bent = frame.clone();
        bent[bit / 8] ^= 1 << (bit % 8);
        let (frames, end) = decode_all(&bent, &mut Seeded(1));
        assert!(frames.is_empty(), "bit {bit} went unnoticed");
        assert!(end.is_err(), "bit {bit} went unnoticed");
    }
}

#[test]
fn garbage_never_panics_and_never_decodes() {
    for seed in 0..2_000 {
        let mut seeded = Seeded(seed);
        let len = seeded.below(200);
        let mut input = seeded.bytes(len);
        // Half of the inputs start well, so that the later checks are reached too.
        if seed % 2 == 0 {
            let mut start = MAGIC.to_vec();
            start.extend_from_slice(&FRAME_VERSION.to_le_bytes());
            start.extend_from_slice(&[u8::try_from(seeded.below(32)).unwrap(), 0, 0, 0]);
            start.append(&mut input);
            input = start;
        }
        let (frames, _) = decode_all(&input, &mut seeded);
        assert!(frames.is_empty(), "seed {seed}");
        let _: Result<Message, CodecError> = decode_payload(&input);
    }
}

#[test]
fn wrong_magic_is_refused_at_its_first_byte() {
    let mut decoder = FrameDecoder::new(MAX_FRAME);
    let expected = Err(CodecError::WrongMagic { found: vec![b'G'] });
    assert_eq!(decoder.push(b"G"), expected);
    assert_eq!(decoder.push(&MAGIC), expected, "a failed decoder stays failed");
}

#[test]
fn other_version_is_refused() {
    let mut frame = encode(&Message::Empty, MAX_FRAME).unwrap();
    frame[4] = 9;
    assert_eq!(FrameDecoder::new(MAX_FRAME).push(&frame), Err(CodecError::UnsupportedVersion { found: 9 }));
}

#[test]
fn long_payload_is_refused_from_its_header() {
    let frame = encode(&Message::Bytes(vec![0; 100]), MAX_FRAME).unwrap();
    let mut decoder = FrameDecoder::new(50);
    assert_eq!(decoder.push(&frame[..HEADER_LEN]), Err(CodecError::TooLong { length: 102, limit: 50 }));
    assert_eq!(encode(&Message::Bytes(vec![0; 100]), 101), Err(CodecError::TooLong { length: 102, limit: 101 }));
    assert!(encode(&Message::Bytes(vec![0; 100]), 102).is_ok());
}

#[test]
fn a_cut_frame_is_reported_as_cut() {
    let frame = encode(&Message::Number(1), MAX_FRAME).unwrap();
    let mut decoder = FrameDecoder::new(MAX_FRAME);
    assert_eq!(decoder.push(&frame[..frame.len() - 1]), Ok(frame.len() - 1));
    assert_eq!(decoder.pop(), None);
    assert_eq!(decoder.finish(), Err(CodecError::Truncated { missing: 1 }));
}

#[test]
fn an_empty_payload_is_a_frame() {
    let frame = frame_payload(&[], MAX_FRAME).unwrap();
    assert_eq!(frame.len(), HEADER_LEN);
    let mut decoder = FrameDecoder::new(MAX_FRAME);
    assert_eq!(decoder.push(&frame), Ok(HEADER_LEN));
    assert_eq!(decoder.pop(), Some(Vec::new()));
    assert_eq!(decoder.finish(), Ok(()));
}

#[test]
fn trailing_bytes_and_huge_claims_are_malformed() {
    let mut bytes = to_bytes(&Message::Empty, 8).unwrap();
    bytes.push(0);
    assert!(matches!(from_bytes::<Message>(&bytes, 8), Err(CodecError::Malformed { .. })));
    // Variant 3 (Bytes) that claims 2^60 elements.
    let mut huge = vec![3, 253];
    huge.extend_from_slice(&(1_u64 << 60).to_le_bytes());
    assert!(matches!(from_bytes::<Message>(&huge, 1024), Err(CodecError::Malformed { .. })));
    assert!(matches!(from_bytes::<Message>(&[0; 9], 8), Err(CodecError::TooLong { .. })));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
