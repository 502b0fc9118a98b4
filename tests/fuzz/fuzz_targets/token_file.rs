//! What lies on disk as tokens, and what is taken over from other programs' files: read or refused, and written
//! back the same.
#![no_main]

use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use tollgate::oauth::agent_call::AgentCall;
use tollgate::oauth::import::read_login;
use tollgate::oauth::record::GrantRecord;
use tollgate::oauth::sealing::is_sealed;

fuzz_target!(|data: &[u8]| {
    if let Ok(record) = GrantRecord::decode(data) {
        let written = record.encode().unwrap();
        let again = GrantRecord::decode(&written).unwrap();
        assert_eq!(*again.encode().unwrap(), *written);
        assert!(!is_sealed(&written));
    }
    drop(read_login(data));
    for kind in ["application/json", "application/x-www-form-urlencoded"] {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static(kind));
        drop(AgentCall::read(&headers, None, data));
    }
});
