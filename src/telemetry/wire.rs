//! Owns how spans are written in OTLP's protobuf (`opentelemetry/proto/trace/v1/trace.proto`), straight
//! into one buffer. The SDK's way, three structures and two strings an attribute, costs a proxy more than a
//! twentieth of what it spends on a small request; the tests read everything back with the official types.

/// A protobuf message under way.
#[derive(Debug, Default)]
pub struct Message(Vec<u8>);

/// Field types of the wire format.
const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const LENGTH: u32 = 2;
const FIXED32: u32 = 5;
/// The tags of a string or message in the fields 1 and 2.
const TEXT_OF_1: u8 = 1 << 3 | LENGTH as u8;
const TEXT_OF_2: u8 = 2 << 3 | LENGTH as u8;

impl Message {
    /// One that comes behind so many octets that are written later, with room for `most` of its own.
    pub fn behind(before: usize, most: usize) -> Self {
        let mut octets = Vec::with_capacity(before + most);
        octets.resize(before, 0);
        Self(octets)
    }

    /// Takes up again what was a message before, emptied.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// What is written so far.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// What is written, for sending.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// A number, with nothing for 0: absent means that.
    pub fn number(&mut self, field: u32, value: u64) {
        if value != 0 {
            self.varint(u64::from(field << 3 | VARINT));
            self.varint(value);
        }
    }

    /// Eight octets, little end first.
    pub fn fixed64(&mut self, field: u32, value: u64) {
        self.varint(u64::from(field << 3 | FIXED64));
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// Four octets, little end first.
    pub fn fixed32(&mut self, field: u32, value: u32) {
        self.varint(u64::from(field << 3 | FIXED32));
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// A string, octets, or a message that is written already.
    pub fn octets(&mut self, field: u32, value: &[u8]) {
        self.begin(field, value.len());
        self.raw(value);
    }

    /// The beginning of a field of so many octets, which come next.
    pub fn begin(&mut self, field: u32, length: usize) {
        self.varint(u64::from(field << 3 | LENGTH));
        self.varint(length as u64);
    }

    /// The octets that such a beginning takes.
    pub fn begun(field: u32, length: usize) -> usize {
        varint_len_64(u64::from(field << 3 | LENGTH)) + varint_len(length)
    }

    /// Fields that are written already.
    pub fn raw(&mut self, fields: &[u8]) {
        self.0.extend_from_slice(fields);
    }

    /// `KeyValue { key, value: AnyValue { string_value } }`.
    pub fn text_attribute(&mut self, field: u32, key: &str, value: &str) {
        let (key_len, value_len) = (key.len(), value.len());
        // As most are: every length takes one octet.
        if key_len + value_len + 6 < 0x80 && field < 0x10 {
            let lengths = [6 + key_len + value_len, key_len, 2 + value_len, value_len];
            let [whole, key_len, inner, value_len] = lengths.map(|length| length as u8);
            self.0.reserve(usize::from(whole) + 2);
            let tag = (field << 3 | LENGTH) as u8;
            self.0.extend_from_slice(&[tag, whole, TEXT_OF_1, key_len]);
            self.0.extend_from_slice(key.as_bytes());
            let head = [TEXT_OF_2, inner, TEXT_OF_1, value_len];
            self.0.extend_from_slice(&head);
            return self.0.extend_from_slice(value.as_bytes());
        }
        let inner = 1 + varint_len(value.len()) + value.len();
        self.attribute(field, key, inner);
        self.octets(1, value.as_bytes());
    }

    /// `KeyValue { key, value: AnyValue { array_value } }` of strings.
    pub fn texts_attribute(&mut self, field: u32, key: &str, values: &[&str]) {
        let any = |value: &&str| {
            let string = 1 + varint_len(value.len()) + value.len();
            (string, 1 + varint_len(string) + string)
        };
        let list: usize = values.iter().map(|value| any(value).1).sum();
        self.attribute(field, key, 1 + varint_len(list) + list);
        self.varint(u64::from(5 << 3 | LENGTH));
        self.varint(list as u64);
        for value in values {
            self.varint(u64::from(1 << 3 | LENGTH));
            self.varint(any(value).0 as u64);
            self.octets(1, value.as_bytes());
        }
    }

    /// `KeyValue { key, value: AnyValue { int_value } }`.
    pub fn integer_attribute(&mut self, field: u32, key: &str, value: i64) {
        let value = value.cast_unsigned();
        self.attribute(field, key, 1 + varint_len_64(value));
        // Within a `oneof`, 0 is written as well.
        self.varint(u64::from(3 << 3 | VARINT));
        self.varint(value);
    }

    /// `KeyValue { key, value: AnyValue { double_value } }`.
    pub fn double_attribute(&mut self, field: u32, key: &str, value: f64) {
        self.attribute(field, key, 9);
        self.fixed64(4, value.to_bits());
    }

    /// `KeyValue { key, value: AnyValue { bool_value: true } }`.
    pub fn true_attribute(&mut self, field: u32, key: &str) {
        self.attribute(field, key, 2);
        self.number(2, 1);
    }

    /// The head of an attribute whose value takes `inner` octets.
    fn attribute(&mut self, field: u32, key: &str, inner: usize) {
        let whole = 1 + varint_len(key.len()) + key.len() + 1 + varint_len(inner) + inner;
        self.varint(u64::from(field << 3 | LENGTH));
        self.varint(whole as u64);
        self.octets(1, key.as_bytes());
        self.varint(u64::from(2 << 3 | LENGTH));
        self.varint(inner as u64);
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

fn varint_len(value: usize) -> usize {
    varint_len_64(value as u64)
}

fn varint_len_64(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}
