//! Owns what the Messages API says, whole and in events: <https://docs.anthropic.com/en/api/messages>,
//! <https://docs.anthropic.com/en/docs/build-with-claude/streaming>.

use serde_json::{Value, json};

use super::conduct::{Asked, Conduct, Tells, portions, text};
use super::piece::{Piece, said_twice};
use super::truth::Used;

/// What a request asks for, or what is wrong with it.
pub fn asked(body: &Value, octets: u64) -> Result<Asked, String> {
    let model = body["model"].as_str().ok_or("model: Field required")?;
    let most = body["max_tokens"].as_u64();
    body["messages"]
        .as_array()
        .ok_or("messages: Field required")?;
    Ok(Asked {
        model: model.to_owned(),
        most: Some(most.ok_or("max_tokens: Field required")?),
        stream: body["stream"].as_bool().unwrap_or(false),
        option: false,
        octets,
    })
}

pub fn error(status: u16, message: &str) -> Value {
    let kind = match status {
        400 => "invalid_request_error",
        401 => "authentication_error",
        404 => "not_found_error",
        429 => "rate_limit_error",
        529 => "overloaded_error",
        _ => "api_error",
    };
    json!({"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_test"})
}

/// A whole answer.
pub fn message(conduct: &Conduct, used: &[Used]) -> String {
    let shown = used[0].output.saturating_sub(conduct.hidden);
    let mut message = head(used);
    message["content"] = json!([{"type": "text", "text": text(shown)}]);
    message["stop_reason"] = "end_turn".into();
    match conduct.tells {
        Tells::Nothing => drop(message.as_object_mut().unwrap().remove("usage")),
        Tells::Null => message["usage"] = Value::Null,
        Tells::Nonsense => message["usage"] = json!({"input_tokens": "many", "output_tokens": -1}),
        _ => message["usage"] = usage(conduct, used),
    }
    match conduct.tells {
        Tells::Twice => said_twice(
            &message,
            "usage",
            "{\"input_tokens\":1,\"output_tokens\":1}",
        ),
        _ => message.to_string(),
    }
}

/// The same in events.
pub fn events(conduct: &Conduct, used: &[Used]) -> Vec<Piece> {
    let output: u64 = used.iter().map(|used| used.output).sum();
    let hidden = conduct.hidden.min(output);
    let mut script = Script::new(conduct);
    let mut start = head(used);
    match conduct.tells {
        Tells::Nothing => drop(start.as_object_mut().unwrap().remove("usage")),
        Tells::Null => start["usage"] = Value::Null,
        Tells::Nonsense => start["usage"] = json!({"input_tokens": "many"}),
        Tells::Late => start["usage"] = json!({"input_tokens": 0, "output_tokens": 0}),
        _ => {
            start["usage"] = usage(conduct, used);
            if conduct.tells != Tells::Zeros {
                start["usage"]["output_tokens"] = output.min(1).into();
            }
            drop(start["usage"].as_object_mut().unwrap().remove("iterations"));
        }
    }
    script.say(
        json!({"type": "message_start", "message": start}),
        output.min(1),
    );
    script.say(json!({"type": "ping"}), 0);
    if hidden > 0 {
        script.think(hidden);
    }
    script.speak(hidden, output - hidden);
    script.end(used);
    script.pieces
}

/// Events as they are written down.
struct Script<'a> {
    conduct: &'a Conduct,
    pieces: Vec<Piece>,
    produced: u64,
    blocks: u64,
}

impl<'a> Script<'a> {
    fn new(conduct: &'a Conduct) -> Self {
        Self {
            conduct,
            pieces: Vec::new(),
            produced: 0,
            blocks: 0,
        }
    }

    fn say(&mut self, event: Value, produced: u64) {
        self.produced = self.produced.max(produced);
        let name = event["type"].as_str().unwrap().to_owned();
        let data = match self.conduct.tells {
            Tells::Twice => said_twice(&event, "usage", "{\"output_tokens\":1}"),
            _ => event.to_string(),
        };
        let (newline, produced) = (self.conduct.newline, self.produced);
        self.pieces
            .push(Piece::event(Some(&name), &data, newline, produced));
    }

    fn block(&mut self, opening: Value) {
        let index = self.blocks;
        self.say(
            json!({"type": "content_block_start", "index": index, "content_block": opening}),
            0,
        );
    }

    fn delta(&mut self, delta: Value, produced: u64) {
        let index = self.blocks;
        self.say(
            json!({"type": "content_block_delta", "index": index, "delta": delta}),
            produced,
        );
    }

    fn close(&mut self) {
        let index = self.blocks;
        self.say(json!({"type": "content_block_stop", "index": index}), 0);
        self.blocks += 1;
    }

    /// Thought that is not shown; how much is told as it goes (beta `thinking-token-count`).
    fn think(&mut self, tokens: u64) {
        self.block(json!({"type": "thinking", "thinking": "", "signature": ""}));
        let mut thought = 0;
        for portion in portions(tokens, self.conduct.piece) {
            thought += portion;
            self.delta(
                json!({"type": "thinking_delta", "thinking": "", "estimated_tokens": portion}),
                thought,
            );
        }
        self.delta(json!({"type": "signature_delta", "signature": "c2ln"}), 0);
        self.close();
    }

    fn speak(&mut self, before: u64, tokens: u64) {
        self.block(json!({"type": "text", "text": ""}));
        let mut spoken = before;
        for portion in portions(tokens, self.conduct.piece) {
            spoken += portion;
            let text = text(portion);
            self.delta(json!({"type": "text_delta", "text": text}), spoken);
        }
        self.close();
    }

    fn end(&mut self, used: &[Used]) {
        let mut last = json!({
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": null},
            "usage": usage(self.conduct, used),
        });
        match self.conduct.tells {
            Tells::Nothing => drop(last.as_object_mut().unwrap().remove("usage")),
            Tells::Null => last["usage"] = Value::Null,
            Tells::Nonsense => last["usage"] = json!({"output_tokens": -1}),
            Tells::Shrinking => {
                let output = last["usage"]["output_tokens"].take();
                last["usage"] = json!({
                    "input_tokens": 0, "cache_read_input_tokens": 0, "cache_creation_input_tokens": null,
                    "output_tokens": output,
                });
            }
            _ => {}
        }
        self.say(last, self.produced);
        self.say(json!({"type": "message_stop"}), self.produced);
    }
}

fn head(used: &[Used]) -> Value {
    json!({
        "id": "msg_01Test",
        "type": "message",
        "role": "assistant",
        "model": used[0].model,
        "content": [],
        "stop_reason": null,
        "stop_sequence": null,
        "usage": null,
    })
}

/// With `iterations`, the top level tells of all but compaction.
fn usage(conduct: &Conduct, used: &[Used]) -> Value {
    if conduct.tells == Tells::Zeros {
        return counts(&Used::default());
    }
    if conduct.iterations.is_empty() {
        return counts(&used[0]);
    }
    let told = conduct.iterations.iter();
    let told = told.filter(|(kind, _)| *kind != "compaction");
    let mut sum = Used::default();
    for (_, used) in told {
        sum.input += used.input;
        sum.write_5m += used.write_5m;
        sum.write_1h += used.write_1h;
        sum.read += used.read;
        sum.output += used.output;
        sum.searches += used.searches;
    }
    let mut usage = counts(&sum);
    let iterations = conduct.iterations.iter().map(|(kind, used)| {
        let mut counts = counts(used);
        counts["type"] = (*kind).into();
        counts["model"] = used.model.as_str().into();
        counts
    });
    usage["iterations"] = iterations.collect();
    usage
}

fn counts(used: &Used) -> Value {
    let mut counts = json!({
        "input_tokens": used.input,
        "cache_creation_input_tokens": used.write_5m + used.write_1h,
        "cache_read_input_tokens": used.read,
        "cache_creation": {
            "ephemeral_5m_input_tokens": used.write_5m,
            "ephemeral_1h_input_tokens": used.write_1h,
        },
        "output_tokens": used.output,
        "service_tier": "standard",
    });
    if used.searches > 0 {
        counts["server_tool_use"] = json!({"web_search_requests": used.searches});
    }
    counts
}
