//! The tokens of TorchScript's code: names, numbers, strings, signs, and blocks by indentation.

/// Deepest nesting of blocks.
const MAX_BLOCKS: usize = 200;

/// A token.
#[derive(Clone, Debug, PartialEq)]
pub enum Token {
    /// A name or keyword.
    Name(String),
    /// A whole number.
    Int(i64),
    /// A real number.
    Float(f64),
    /// A string without its quotes.
    Str(String),
    /// A sign.
    Op(&'static str),
    /// The end of a statement.
    Newline,
    /// A block begins.
    Indent,
    /// A block ends.
    Dedent,
    /// The end of the file.
    End,
}

/// Longer ones first.
const OPERATORS: &[&str] = &[
    "->", "**=", "//=", "**", "//", "==", "!=", "<=", ">=", "<<", ">>", "+=", "-=", "*=", "/=", "(", ")", "[", "]",
    "{", "}", ",", ":", ".", "=", "+", "-", "*", "/", "%", "<", ">", "&", "|", "^", "~", "@",
];

/// The tokens of a file with their lines, from 1; the last is [`Token::End`].
///
/// # Errors
/// One sentence: the line, and what is wrong there.
pub fn tokens(text: &str) -> Result<Vec<(Token, usize)>, String> {
    let mut out = Vec::new();
    let mut indents = vec![0];
    let mut brackets = 0usize;
    for (number, line) in text.lines().enumerate() {
        let number = number + 1;
        let code = line.trim_start_matches(' ');
        let indent = line.len() - code.len();
        if code.trim().is_empty() || (code.starts_with('#') && brackets == 0) {
            continue;
        }
        if brackets == 0 {
            if indents.last().is_some_and(|&last| indent > last) {
                indents.push(indent);
                out.push((Token::Indent, number));
            }
            while indents.last().is_some_and(|&last| indent < last) {
                indents.pop();
                out.push((Token::Dedent, number));
            }
            if indents.last() != Some(&indent) || indents.len() > MAX_BLOCKS {
                return Err(format!("line {number}: the indentation fits no block"));
            }
        }
        let mut rest = code;
        loop {
            rest = rest.trim_start();
            let Some(first) = rest.chars().next().filter(|&c| c != '#') else { break };
            let (token, length) = if first.is_alphabetic() || first == '_' {
                let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
                (Token::Name(rest[..end].to_owned()), end)
            } else if first.is_ascii_digit() {
                digits(rest).ok_or_else(|| format!("line {number}: {rest:?} begins with no number"))?
            } else if first == '"' || first == '\'' {
                quoted(rest).ok_or_else(|| format!("line {number}: a string does not end"))?
            } else {
                let op = OPERATORS.iter().find(|op| rest.starts_with(**op));
                let op = op.ok_or_else(|| format!("line {number}: {first:?} is not expected"))?;
                match *op {
                    "(" | "[" | "{" => brackets += 1,
                    ")" | "]" | "}" => brackets = brackets.saturating_sub(1),
                    _ => {}
                }
                (Token::Op(op), op.len())
            };
            out.push((token, number));
            rest = &rest[length..];
        }
        if brackets == 0 {
            out.push((Token::Newline, number));
        }
    }
    let last = text.lines().count();
    out.extend(indents.iter().skip(1).map(|_| (Token::Dedent, last)));
    out.push((Token::End, last));
    Ok(out)
}

/// A number at the start of a text, and its length.
fn digits(text: &str) -> Option<(Token, usize)> {
    let bytes = text.as_bytes();
    let mut end = 0;
    let mut float = false;
    while let Some(&byte) = bytes.get(end) {
        match byte {
            b'0'..=b'9' => {}
            b'.' => float = true,
            b'e' | b'E' => {
                float = true;
                if matches!(bytes.get(end + 1), Some(b'+' | b'-')) {
                    end += 1;
                }
            }
            _ => break,
        }
        end += 1;
    }
    let number = &text[..end];
    let token = match float {
        true => Token::Float(number.parse().ok()?),
        false => number.parse().map(Token::Int).or_else(|_| number.parse().map(Token::Float)).ok()?,
    };
    Some((token, end))
}

/// A string in quotes at the start of a text, and its length.
fn quoted(text: &str) -> Option<(Token, usize)> {
    let quote = text.chars().next()?;
    let mut out = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        if c == quote {
            return Some((Token::Str(out), at + 1));
        }
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next()?.1 {
            'n' => out.push('\n'),
            't' => out.push('\t'),
            'r' => out.push('\r'),
            'x' => {
                let code: String = [chars.next()?.1, chars.next()?.1].iter().collect();
                out.push(char::from(u8::from_str_radix(&code, 16).ok()?));
            }
            // The printer writes other bytes in octal.
            c @ '0'..='7' => {
                let mut code = c.to_digit(8)?;
                for _ in 0..2 {
                    let mut ahead = chars.clone();
                    let Some(digit) = ahead.next().and_then(|(_, c)| c.to_digit(8)) else { break };
                    code = code * 8 + digit;
                    chars = ahead;
                }
                out.push(char::from_u32(code)?);
            }
            c => out.push(c),
        }
    }
    None
}
