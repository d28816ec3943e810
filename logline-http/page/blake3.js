// BLAKE3-256 in its default mode (no key, no context), from the specification. Checked in Node against the Rust crate's results.

const BLOCK = 64;
const CHUNK = 1024;
const CHUNK_START = 1;
const CHUNK_END = 2;
const PARENT = 4;
const ROOT = 8;

const IV = Uint32Array.of(
  0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
);
const PERMUTATION = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8];

// Which message words each of the seven rounds takes, in the order of the permutation.
const SCHEDULE = (() => {
  const rounds = [Array.from({ length: 16 }, (_, word) => word)];
  while (rounds.length < 7) {
    const last = rounds[rounds.length - 1];
    rounds.push(PERMUTATION.map((word) => last[word]));
  }
  return rounds;
})();

function mix(state, a, b, c, d, x, y) {
  state[a] = state[a] + state[b] + x;
  let word = state[d] ^ state[a];
  state[d] = (word >>> 16) | (word << 16);
  state[c] = state[c] + state[d];
  word = state[b] ^ state[c];
  state[b] = (word >>> 12) | (word << 20);
  state[a] = state[a] + state[b] + y;
  word = state[d] ^ state[a];
  state[d] = (word >>> 8) | (word << 24);
  state[c] = state[c] + state[d];
  word = state[b] ^ state[c];
  state[b] = (word >>> 7) | (word << 25);
}

// The first eight words of the compression function: all that a hash of 256 bits needs.
function compress(chaining, words, counter, length, flags) {
  const state = new Uint32Array(16);
  state.set(chaining);
  state.set(IV.subarray(0, 4), 8);
  state[12] = counter >>> 0;
  state[13] = Math.floor(counter / 2 ** 32);
  state[14] = length;
  state[15] = flags;
  for (const order of SCHEDULE) {
    mix(state, 0, 4, 8, 12, words[order[0]], words[order[1]]);
    mix(state, 1, 5, 9, 13, words[order[2]], words[order[3]]);
    mix(state, 2, 6, 10, 14, words[order[4]], words[order[5]]);
    mix(state, 3, 7, 11, 15, words[order[6]], words[order[7]]);
    mix(state, 0, 5, 10, 15, words[order[8]], words[order[9]]);
    mix(state, 1, 6, 11, 12, words[order[10]], words[order[11]]);
    mix(state, 2, 7, 8, 13, words[order[12]], words[order[13]]);
    mix(state, 3, 4, 9, 14, words[order[14]], words[order[15]]);
  }
  return state.subarray(0, 8).map((word, index) => word ^ state[index + 8]);
}

// The words of a block, little-endian. A short block is filled up with zeros.
function wordsOf(bytes) {
  const block = new Uint8Array(BLOCK);
  block.set(bytes);
  const view = new DataView(block.buffer);
  return Uint32Array.from({ length: 16 }, (_, word) => view.getUint32(word * 4, true));
}

// A node that waits to be compressed: whether it is the root is known only at the end.
function chunkNode(bytes, counter) {
  let chaining = IV;
  const blocks = Math.max(1, Math.ceil(bytes.length / BLOCK));
  for (let block = 0; ; block += 1) {
    const part = bytes.subarray(block * BLOCK, (block + 1) * BLOCK);
    const words = wordsOf(part);
    const flags = (block === 0 ? CHUNK_START : 0) | (block === blocks - 1 ? CHUNK_END : 0);
    if (block === blocks - 1) return { chaining, words, counter, length: part.length, flags };
    chaining = compress(chaining, words, counter, part.length, flags);
  }
}

const parentNode = (left, right) => {
  const words = new Uint32Array(16);
  words.set(left);
  words.set(right, 8);
  return { chaining: IV, words, counter: 0, length: BLOCK, flags: PARENT };
};

const finish = (node, extra = 0) =>
  compress(node.chaining, node.words, node.counter, node.length, node.flags | extra);

/** The BLAKE3-256 hash of a Uint8Array, as 32 bytes. */
export function blake3(bytes) {
  const chunks = Math.max(1, Math.ceil(bytes.length / CHUNK));
  // The roots of complete subtrees, largest first: as many as the number of chunks has ones in binary.
  const stack = [];
  for (let chunk = 0; chunk < chunks - 1; chunk += 1) {
    let root = finish(chunkNode(bytes.subarray(chunk * CHUNK, (chunk + 1) * CHUNK), chunk));
    for (let total = chunk + 1; total % 2 === 0; total /= 2) root = finish(parentNode(stack.pop(), root));
    stack.push(root);
  }
  let node = chunkNode(bytes.subarray((chunks - 1) * CHUNK), chunks - 1);
  while (stack.length > 0) node = parentNode(stack.pop(), finish(node));
  const words = finish(node, ROOT);
  const hash = new Uint8Array(32);
  const view = new DataView(hash.buffer);
  words.forEach((word, index) => view.setUint32(index * 4, word, true));
  return hash;
}
