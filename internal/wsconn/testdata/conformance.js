// Tries the rules of RFC 6455 on an echo server, with the ws package on the other side: it makes the
// frames, right and wrong ones, and judges the answers with its own parser. The cases are of the
// kinds of the Autobahn suite: framing, pings, reserved bits, opcodes, fragments, UTF-8, close and sizes.
// Usage: node conformance.js ws://host:port [whole]
'use strict';
const assert = require('assert');
const WebSocket = require('ws');
const url = process.argv[2];
const whole = process.argv[3] === 'whole'; // all frames of a case in one write, and not byte by byte too
const limit = 512 << 10; // of the server's messages

const [CONT, TEXT, BINARY, CLOSE, PING, PONG] = [0, 1, 2, 8, 9, 10];

// frame is one frame as bytes; options: fin (true), bits (reserved ones, 0).
const frame = (opcode, payload = '', { fin = true, bits = 0 } = {}) => {
  const out = Buffer.concat(WebSocket.Sender.frame(Buffer.from(payload), { fin, opcode, mask: true, readOnly: true }));
  out[0] |= bits << 4;
  return out;
};
const more = { fin: false };
const hex = (s) => Buffer.from(s, 'hex');
const closing = (code, reason = '') => {
  const b = Buffer.alloc(2);
  b.writeUInt16BE(code);
  return Buffer.concat([b, Buffer.from(reason)]);
};

// A case is a name, frames to send, what comes back (t: text, b: binary, p: pong), and the code of the
// server's close frame. If the server is not to close, the client does, and 1000 comes back.
const cases = [];
const add = (name, frames, back, code = 1000) => cases.push({ name, frames, back, code });
const t = (s) => 't' + Buffer.from(s).toString('hex');
const b = (s) => 'b' + Buffer.from(s).toString('hex');
const p = (s) => 'p' + Buffer.from(s).toString('hex');

// Framing.
for (const n of [0, 1, 125, 126, 127, 128, 65535, 65536]) {
  add(`text of ${n}`, [frame(TEXT, '*'.repeat(n))], [t('*'.repeat(n))]);
  add(`binary of ${n}`, [frame(BINARY, Buffer.alloc(n, 0xfe))], [b(Buffer.alloc(n, 0xfe))]);
}

// Pings and pongs.
add('ping without payload', [frame(PING)], [p('')]);
add('ping of 125 bytes', [frame(PING, Buffer.alloc(125, 0xfe))], [p(Buffer.alloc(125, 0xfe))]);
add('ping of 126 bytes', [frame(PING, Buffer.alloc(126, 0xfe))], [], 1002);
add('pongs that nobody asked for', [frame(PONG), frame(PONG, 'x'), frame(TEXT, 'a')], [t('a')]);
add('pong of 126 bytes', [frame(PONG, Buffer.alloc(126))], [], 1002);

// Reserved bits, on all kinds of frames, behind a good message and alone.
for (let bits = 1; bits < 8; bits++) {
  for (const op of [TEXT, BINARY, CLOSE, PING, PONG]) {
    add(`reserved bits ${bits} on opcode ${op}`, [frame(op, op === CLOSE ? closing(1000) : 'x', { bits })], [], 1002);
  }
  add(`reserved bits ${bits} behind a message`, [frame(TEXT, 'good'), frame(TEXT, 'bad', { bits })], [t('good')], 1002);
  add(`reserved bits ${bits} in a later fragment`, [frame(TEXT, 'a', more), frame(CONT, 'b', { bits })], [], 1002);
}

// Opcodes.
for (const op of [3, 4, 5, 6, 7, 11, 12, 13, 14, 15]) {
  add(`reserved opcode ${op}`, [frame(op)], [], 1002);
  add(`reserved opcode ${op} with payload behind a message`, [frame(TEXT, 'good'), frame(op, 'x')], [t('good')], 1002);
}

// Fragments and control frames between them.
for (const op of [CLOSE, PING, PONG]) {
  add(`opcode ${op} in fragments`, [frame(op, op === CLOSE ? closing(1000) : 'a', more), frame(CONT, 'b')], [], 1002);
}
add('text in two', [frame(TEXT, 'ab', more), frame(CONT, 'cd')], [t('abcd')]);
add('binary in three, the last one empty', [frame(BINARY, 'ab', more), frame(CONT, 'cd', more), frame(CONT)], [b('abcd')]);
add('empty fragments', [frame(TEXT, '', more), frame(CONT, '', more), frame(CONT, '')], [t('')]);
add('pings between fragments', [frame(TEXT, 'a', more), frame(PING, '1'), frame(CONT, 'b', more), frame(PONG, 'x'), frame(CONT, 'c')],
  [p('1'), t('abc')]);
add('close between fragments', [frame(TEXT, 'a', more), frame(CLOSE, closing(1000)), frame(CONT, 'b')], [], 1000);
for (const options of [{}, more]) {
  add(`continuation of nothing, fin ${options.fin !== false}`, [frame(CONT, 'x', options), frame(TEXT, 'y')], [], 1002);
  add(`continuation behind a message, fin ${options.fin !== false}`, [frame(TEXT, 'y'), frame(CONT, 'x', options)], [t('y')], 1002);
  add(`text inside a message, fin ${options.fin !== false}`, [frame(TEXT, 'x', more), frame(TEXT, 'y', options)], [], 1002);
  add(`binary inside a message, fin ${options.fin !== false}`, [frame(TEXT, 'x', more), frame(BINARY, 'y', options)], [], 1002);
}
add('an unmasked frame', [Buffer.concat(WebSocket.Sender.frame(Buffer.from('x'), { fin: true, opcode: TEXT, mask: false, readOnly: true }))], [], 1002);
add('a length not in its shortest form', [hex('81fe000112345678' + '6a')], [], 1002);
add('a length of 64 bits', [hex('82ffffffffffffffffff12345678')], [], 1002);

// UTF-8: each text whole, and cut into two and three fragments at every byte.
const texts = {
  good: ['', '68656c6c6f', 'cebae1bdb9cf83cebcceb5', 'c280', 'e0a080', 'f0908080', '7f', 'dfbf', 'efbfbf', 'f48fbfbf', 'ed9fbf', 'ee8080', 'efbfbd', 'f09f9880c3a9'],
  bad: ['80', 'bf', '8080', 'fe', 'ff', 'fefeffff', 'c080', 'c1bf', 'e08080', 'e09fbf', 'f0808080', 'f08fbfbf', 'f880808080', 'fc8080808080',
    'f4908080', 'f5808080', 'eda080', 'edbfbf', 'eda080edb080', 'c3', 'e282', 'f09f98', 'c328', 'e28228', '61c36261', 'cebae1bdb9cf83cebcceb5eda080656469746564'],
};
for (const [kind, list] of Object.entries(texts)) {
  for (const text of list) {
    const all = hex(text);
    const [back, code] = kind === 'good' ? [[t(all)], 1000] : [[], 1007];
    add(`${kind} UTF-8 ${text}`, [frame(TEXT, all)], back, code);
    for (let i = 0; i <= all.length; i++) {
      add(`${kind} UTF-8 ${text} cut at ${i}`, [frame(TEXT, all.subarray(0, i), more), frame(CONT, all.subarray(i))], back, code);
      if (all.length > 6) continue;
      for (let j = i; j <= all.length; j++) {
        add(`${kind} UTF-8 ${text} cut at ${i} and ${j}, a ping between`,
          [frame(TEXT, all.subarray(0, i), more), frame(CONT, all.subarray(i, j), more), frame(PING, 'x'), frame(CONT, all.subarray(j))],
          kind === 'good' ? [p('x'), ...back] : back, code);
      }
    }
    if (kind === 'bad') add(`the same as binary ${text}`, [frame(BINARY, all)], [b(all)]);
  }
}

// Close.
add('close without payload', [frame(CLOSE)], [], 1005);
add('close of one byte', [frame(CLOSE, 'x')], [], 1002);
for (const code of [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999]) {
  add(`close ${code}`, [frame(CLOSE, closing(code, 'why'))], [], code);
}
for (const code of [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535]) {
  add(`close ${code}, which may not be sent`, [frame(CLOSE, closing(code))], [], 1002);
}
add('close with a reason of 123 bytes', [frame(CLOSE, closing(1000, 'x'.repeat(123)))], [], 1000);
add('close with a reason of 124 bytes', [frame(CLOSE, closing(1000, 'x'.repeat(124)))], [], 1002);
add('close with a reason that is no UTF-8', [frame(CLOSE, Buffer.concat([closing(1000), hex('cebae1bdb9cf83cebcceb5eda080')]))], [], 1007);
add('frames behind a close', [frame(TEXT, 'a'), frame(CLOSE, closing(1000)), frame(TEXT, 'b'), frame(PING, 'c'), frame(CLOSE, closing(1001))], [t('a')], 1000);

// Sizes.
const big = Buffer.alloc(limit, 0x2a);
add('the largest message', [frame(BINARY, big)], [b(big)]);
add('the largest message in fragments', [frame(BINARY, big.subarray(0, 1000), more), ...Array.from({ length: 100 }, (_, i) =>
  frame(CONT, big.subarray(1000 + i * 5000, 6000 + i * 5000), more)), frame(CONT, big.subarray(501000))], [b(big)]);
add('one byte more', [frame(TEXT, Buffer.concat([big, hex('2a')]))], [], 1009);
add('one byte more in fragments', [frame(TEXT, big, more), frame(CONT, '*')], [], 1009);
add('a promise of much more', [hex('82ff00000100000000001234567800')], [], 1009);

// run sends a case's frames, in pieces of so many bytes, and compares.
const run = ({ name, frames, back, code }, piece) => new Promise((resolve, reject) => {
  const ws = new WebSocket(url, { rejectUnauthorized: false });
  const got = [];
  const wrong = (what) => reject(new Error(`${name}, in pieces of ${piece || 'any size'}: ${what}`));
  const late = setTimeout(() => wrong('timed out after ' + JSON.stringify(got).slice(0, 300)), 30000);
  const enough = () => {
    if (code === 1000 && got.length === back.length && ws.readyState === WebSocket.OPEN) ws.close(1000);
  };
  ws.on('error', (err) => {
    if (err.code !== 'ECONNRESET' && err.code !== 'EPIPE') wrong(err.message);
  });
  ws.on('message', (data, binary) => {
    got.push((binary ? 'b' : 't') + data.toString('hex'));
    enough();
  });
  ws.on('pong', (data) => {
    got.push('p' + data.toString('hex'));
    enough();
  });
  ws.on('close', (closed) => {
    clearTimeout(late);
    const want = JSON.stringify(back);
    const seen = JSON.stringify(got);
    // Before an error a pong may come or not.
    if (seen !== want && !(code !== 1000 && seen === JSON.stringify(back.concat(got.filter((g) => g[0] === 'p'))))) {
      return wrong(`got ${seen.slice(0, 200)}, want ${want.slice(0, 200)}`);
    }
    if (closed !== code) return wrong(`closed with ${closed}, want ${code}`);
    resolve();
  });
  ws.on('open', () => {
    const all = Buffer.concat(frames);
    if (!piece) ws._socket.write(all);
    else
      for (let i = 0; i < all.length; i += piece) ws._socket.write(all.subarray(i, i + piece));
    if (!back.length && code === 1000 && !frames.some((f) => (f[0] & 0xf) === CLOSE)) ws.close(1000);
  });
});

(async () => {
  const todo = [];
  for (const c of cases) {
    todo.push([c, 0]);
    // Who goes on behind a close frame may miss the answer to it.
    if (!whole && Buffer.concat(c.frames).length < 200 && !c.name.includes('close between') && !c.name.includes('behind a close')) todo.push([c, 1]);
  }
  const count = todo.length;
  const failed = [];
  const worker = async () => {
    for (let next = todo.pop(); next; next = todo.pop()) await run(...next).catch((err) => failed.push(err.message));
  };
  await Promise.all(Array.from({ length: 16 }, worker));
  failed.forEach((f) => console.error('not ok: ' + f));
  assert.ok(count > 500);
  console.log(`${count - failed.length} of ${count} ok`);
  process.exit(failed.length ? 1 : 0);
})();
