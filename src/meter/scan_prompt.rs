//! Owns looking through prompts for what costs more tokens than it has octets: files, addresses,
//! documents and pictures, at whatever depth they stand.
//!
//! Names are compared folded, so that what any parser takes is noticed; noticing too much only reserves
//! more. What a tool is called with (`input`, `args`) and schemas are data: they are billed as text.

use super::field::{Folded, anything, string_if_any};
use super::gathered::Gathered;
use super::json::{Kind, Text, Walker};
use super::scan_error::ScanError;

/// What the values below a place are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Messages and their parts.
    Content,
    /// Whatever the user likes: only caches are looked for.
    Data,
    /// Settings that are not known: they may name models.
    Settings,
}

/// Looks through one value. `picture` is the most tokens that the API's models take for a picture.
pub(super) struct Look<'g> {
    pub(super) gathered: &'g mut Gathered,
    pub(super) picture: u64,
}

impl Look<'_> {
    pub(super) fn through(
        &mut self,
        walker: &mut Walker<'_>,
        place: Place,
    ) -> Result<(), ScanError> {
        match walker.peek()? {
            Kind::Object => walker.object(|walker, name| self.member(walker, place, name)),
            Kind::Array => walker.array(|walker| self.through(walker, place)),
            _ => walker.pass(),
        }
    }

    /// One member of an object.
    pub(super) fn member(
        &mut self,
        walker: &mut Walker<'_>,
        place: Place,
        name: Text<'_>,
    ) -> Result<(), ScanError> {
        let folded = Folded::of(name);
        if self.gathered.takes_cache(walker, folded.as_str())? {
            return Ok(());
        }
        match place {
            Place::Data => self.through(walker, Place::Data),
            Place::Settings => self.setting(walker, folded.as_str(), name),
            Place::Content => self.part(walker, folded.as_str(), name),
        }
    }

    fn setting(
        &mut self,
        walker: &mut Walker<'_>,
        folded: &str,
        name: Text<'_>,
    ) -> Result<(), ScanError> {
        // A tool's choice, a user's labels and schemas name no models.
        let data = [
            "metadata",
            "labels",
            "schema",
            "json_schema",
            "format",
            "tool_choice",
            "properties",
        ];
        if data.contains(&&*name.said()) {
            return self.through(walker, Place::Data);
        }
        match folded {
            "model" | "models" => self.gathered.model_list(walker),
            _ if folded.starts_with("fallback") => self.gathered.model_list(walker),
            _ => self.through(walker, Place::Settings),
        }
    }

    fn part(
        &mut self,
        walker: &mut Walker<'_>,
        folded: &str,
        name: Text<'_>,
    ) -> Result<(), ScanError> {
        match folded {
            "fileid" | "fileurl" | "fileuri" | "filedata" | "s3location" | "document" | "video"
            | "videourl" | "audio" | "audiourl" => {
                self.gathered.reaches_out |= anything(walker)?;
                Ok(())
            }
            "imageurl" => self.address(walker),
            "source" | "inlinedata" | "image" => self.source(walker),
            "images" => self.pictures(walker),
            "type" => self.kind(walker),
            _ => {
                let data = [
                    "input",
                    "args",
                    "arguments",
                    "json",
                    "response",
                    "parameters",
                ];
                let place = match data.contains(&&*name.said()) {
                    true => Place::Data,
                    false => Place::Content,
                };
                self.through(walker, place)
            }
        }
    }

    /// Parts that say by their type that what they are stands elsewhere.
    fn kind(&mut self, walker: &mut Walker<'_>) -> Result<(), ScanError> {
        let elsewhere = ["item_reference", "container_upload", "input_file", "file"];
        let said = string_if_any(walker)?.filter(|kind| kind.raw().len() < 128);
        let said = said.map(|kind| kind.said().to_ascii_lowercase());
        self.gathered.reaches_out |= said.is_some_and(|kind| elsewhere.contains(&&*kind));
        Ok(())
    }

    /// OpenAI's `image_url`: an address or a `data:` URL, in an object or not.
    fn address(&mut self, walker: &mut Walker<'_>) -> Result<(), ScanError> {
        match walker.peek()? {
            Kind::String => {
                let address = walker.string()?.raw();
                let data = address
                    .get(..5)
                    .is_some_and(|scheme| scheme.eq_ignore_ascii_case("data:"));
                match data {
                    true => self.gathered.picture(address.len(), self.picture),
                    false => self.gathered.reaches_out = true,
                }
                Ok(())
            }
            Kind::Object => walker.object(|walker, name| match Folded::of(name).as_str() {
                "url" => self.address(walker),
                _ => walker.pass(),
            }),
            _ => walker.pass(),
        }
    }

    /// Where a picture or a document comes from: `{type: base64, media_type, data}`, `{bytes}`,
    /// `{mimeType, data}`, `{type: url, url}`, `{type: content, content}`.
    fn source(&mut self, walker: &mut Walker<'_>) -> Result<(), ScanError> {
        if walker.peek()? != Kind::Object {
            return walker.pass();
        }
        let (mut octets, mut text, mut picture) = (None, false, false);
        walker.object(|walker, name| {
            let folded = Folded::of(name);
            match folded.as_str() {
                "data" | "bytes" => {
                    let data = string_if_any(walker)?.map_or(0, |data| data.raw().len());
                    octets = Some(octets.unwrap_or(0).max(data));
                }
                "mediatype" | "mimetype" => {
                    let media = string_if_any(walker)?.filter(|media| media.raw().len() < 128);
                    let media = media.map(|media| media.said().to_ascii_lowercase());
                    match media.as_deref() {
                        Some(media) if media.starts_with("text/") => text = true,
                        Some(media) if media.starts_with("image/") => picture = true,
                        // A PDF's pages are compressed; sound and films have tokens by the second.
                        _ => self.gathered.reaches_out = true,
                    }
                }
                "url" | "uri" => self.gathered.reaches_out |= anything(walker)?,
                _ => return self.member(walker, Place::Content, name),
            }
            Ok::<_, ScanError>(())
        })?;
        match octets {
            Some(octets) if picture || !text => self.gathered.picture(octets, self.picture),
            _ => {}
        }
        Ok(())
    }

    /// Ollama's `images`: a list of pictures in base64.
    pub(super) fn pictures(&mut self, walker: &mut Walker<'_>) -> Result<(), ScanError> {
        match walker.peek()? {
            Kind::Array => walker.array(|walker| self.pictures(walker)),
            Kind::String => {
                let octets = walker.string()?.raw().len();
                self.gathered.picture(octets, self.picture);
                Ok(())
            }
            _ => self.through(walker, Place::Content),
        }
    }
}
