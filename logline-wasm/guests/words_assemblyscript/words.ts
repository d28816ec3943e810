// How many words a text has, as a LogLine function in AssemblyScript.
//
//   npx asc words.ts --runtime minimal --optimize --use abort= --outFile words.wasm
//
// The request's input is an object with a member "text"; the answer is {"words": n}. One line is logged.

@external("logline", "host_call")
declare function host_call(op: i32, ptr: usize, len: i32): u64;

// ABI v1: a pointer in the high 32 bits, a length in the low 31, bit 31 for an error object.
function packed(text: string, isError: bool): u64 {
  const bytes = String.UTF8.encode(text);
  const ptr = changetype<usize>(bytes);
  // An instance serves one call: what is returned must not be collected, and nothing else need be freed.
  __pin(ptr);
  return (u64(ptr) << 32) | (isError ? 0x80000000 : 0) | u64(bytes.byteLength);
}

export function alloc(len: i32): usize {
  const buffer = new ArrayBuffer(len);
  const ptr = changetype<usize>(buffer);
  __pin(ptr);
  return ptr;
}

function log(message: string): void {
  const line = String.UTF8.encode('{"level":"info","message":"' + message + '"}');
  host_call(1, changetype<usize>(line), line.byteLength);
}

// Where the value of a member begins in the object that begins at `at`; -1 where there is no such object or member. (Canonical JSON
// has nothing between its tokens. A library, such as json-as, does without this.)
function member(json: string, at: i32, name: string): i32 {
  if (at < 0 || json.charCodeAt(at) != 0x7b) return -1;
  let depth = 0;
  for (let i = at; i < json.length; i++) {
    const c = json.charCodeAt(i);
    if (c == 0x7b || c == 0x5b) depth++;
    if ((c == 0x7d || c == 0x5d) && --depth == 0) return -1;
    if (c != 0x22) continue;
    const start = i + 1;
    for (i = start; i < json.length && json.charCodeAt(i) != 0x22; i++) {
      if (json.charCodeAt(i) == 0x5c) i++;
    }
    // A text that a colon follows is a name.
    if (depth == 1 && json.charCodeAt(i + 1) == 0x3a && json.substring(start, i) == name) return i + 2;
  }
  return -1;
}

export function run(ptr: usize, len: i32): u64 {
  const call = String.UTF8.decodeUnsafe(ptr, len);
  const start = member(call, member(call, 0, "input"), "text");
  if (start < 0 || call.charCodeAt(start) != 0x22) {
    return packed('{"code":"invalid_input","message":"input.text is missing: send {\\"text\\": …}"}', true);
  }
  let words = 0;
  let within = false;
  for (let i = start + 1; i < call.length; i++) {
    let c = call.charCodeAt(i);
    if (c == 0x22) break;
    let isSpace = c == 0x20;
    if (c == 0x5c) {
      // \n, \t and \r part words; other escapes are letters.
      c = call.charCodeAt(++i);
      isSpace = c == 0x6e || c == 0x74 || c == 0x72;
    }
    if (!isSpace && !within) words++;
    within = !isSpace;
  }
  log("counted");
  return packed('{"words":' + words.toString() + "}", false);
}
