//! Owns signed assertions: keys for tests, and the verification of what was signed with them
//! (RFC 7515, 7519).

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RsaKeyPair, UnparsedPublicKey,
    VerificationAlgorithm,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, PublicKeyData as _};
use serde_json::{Value, json};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    Rs256,
    Es256,
}

impl Algorithm {
    fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
        }
    }
}

/// The key of a client, new for one test.
pub struct SigningKey {
    algorithm: Algorithm,
    pair: KeyPair,
}

impl SigningKey {
    /// RSA with 2048 bits, as Google and GitHub hand out.
    pub fn rs256() -> Self {
        Self {
            algorithm: Algorithm::Rs256,
            pair: KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap(),
        }
    }

    pub fn es256() -> Self {
        Self {
            algorithm: Algorithm::Es256,
            pair: KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap(),
        }
    }

    /// `BEGIN PRIVATE KEY`: PKCS #8, as in Google's `private_key`.
    pub fn pem(&self) -> String {
        self.pair.serialize_pem()
    }

    /// `BEGIN RSA PRIVATE KEY`: PKCS #1, as GitHub hands it out.
    pub fn pkcs1_pem(&self) -> String {
        let der = self.pair.serialize_der();
        // PKCS #8 puts version, algorithm and the head of an OCTET STRING before it (RFC 5208).
        assert_eq!(
            (self.algorithm, &der[22..24]),
            (Algorithm::Rs256, &[4, 0x82][..])
        );
        let coded = STANDARD.encode(&der[26..]);
        let lines: Vec<&str> = (0..coded.len())
            .step_by(64)
            .map(|at| &coded[at..coded.len().min(at + 64)])
            .collect();
        let lines = lines.join("\n");
        format!("-----BEGIN RSA PRIVATE KEY-----\n{lines}\n-----END RSA PRIVATE KEY-----\n")
    }

    pub fn public(&self) -> PublicKey {
        PublicKey {
            algorithm: self.algorithm,
            bytes: self.pair.der_bytes().to_vec(),
        }
    }

    /// A JWT with these claims.
    pub fn sign(&self, claims: &Value) -> String {
        let header = json!({"alg": self.algorithm.name(), "typ": "JWT"});
        let [header, claims] =
            [&header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
        let text = format!("{header}.{claims}");
        let (pkcs8, random) = (self.pair.serialize_der(), SystemRandom::new());
        let signature = match self.algorithm {
            Algorithm::Rs256 => {
                let key = RsaKeyPair::from_pkcs8(&pkcs8).unwrap();
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, text.as_bytes(), &mut signature)
                    .unwrap();
                signature
            }
            Algorithm::Es256 => {
                let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8);
                let signature = key.unwrap().sign(&random, text.as_bytes()).unwrap();
                signature.as_ref().to_vec()
            }
        };
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// What a provider knows of it.
#[derive(Clone, Debug)]
pub struct PublicKey {
    pub algorithm: Algorithm,
    /// RSA as in PKCS #1, an elliptic curve's as the uncompressed point.
    bytes: Vec<u8>,
}

impl PublicKey {
    /// The claims of a JWT that was signed with the private key, with the one agreed algorithm.
    pub fn verify(&self, jwt: &str) -> Result<Value, &'static str> {
        let (text, signature) = jwt.rsplit_once('.').ok_or("no JWT")?;
        let (header, claims) = text.split_once('.').ok_or("no JWT")?;
        let header = part(header).ok_or("its header is no JSON in base64url")?;
        if header["alg"] != self.algorithm.name() {
            return Err("alg is another one");
        }
        if header.get("typ").is_some_and(|typ| typ != "JWT") {
            return Err("typ is not JWT");
        }
        let algorithm: &'static dyn VerificationAlgorithm = match self.algorithm {
            Algorithm::Rs256 => &RSA_PKCS1_2048_8192_SHA256,
            Algorithm::Es256 => &ECDSA_P256_SHA256_FIXED,
        };
        let signature = URL_SAFE_NO_PAD.decode(signature);
        let signature = signature.map_err(|_| "its signature is not base64url")?;
        UnparsedPublicKey::new(algorithm, &self.bytes)
            .verify(text.as_bytes(), &signature)
            .map_err(|_| "its signature is wrong")?;
        part(claims).ok_or("its claims are no JSON in base64url")
    }
}

fn part(coded: &str) -> Option<Value> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(coded).ok()?).ok()
}

/// The claims of any JWT, unverified.
#[track_caller]
pub fn claims_of(jwt: &str) -> Value {
    let claims = jwt.split('.').nth(1).and_then(part);
    claims.unwrap_or_else(|| panic!("no JWT: {jwt}"))
}
