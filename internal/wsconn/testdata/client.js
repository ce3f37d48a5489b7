// Talks to an echo server with the ws package and checks what comes back.
// Usage: node client.js ws://host:port
'use strict';
const assert = require('assert');
const { once } = require('events');
const WebSocket = require('ws');
const url = process.argv[2];

const open = async (options) => {
  const ws = new WebSocket(url, { rejectUnauthorized: false, ...options });
  await once(ws, 'open');
  return ws;
};
const closed = (ws) => new Promise((resolve) => ws.once('close', (code, reason) => resolve([code, reason.toString()])));

const tests = {
  async 'messages of all sizes come back'() {
    const ws = await open();
    for (const n of [0, 1, 125, 126, 65535, 65536, 500000]) {
      for (const binary of [false, true]) {
        const sent = binary ? Buffer.alloc(n, 7) : 'é'.repeat(n >> 1) + 'x'.repeat(n & 1);
        ws.send(sent, { binary });
        const [data, isBinary] = await once(ws, 'message');
        assert.strictEqual(isBinary, binary);
        assert.ok(Buffer.from(sent).equals(data), `${n} bytes differ`);
      }
    }
    ws.close(1000, 'done');
    assert.deepStrictEqual(await closed(ws), [1000, '']);
  },
  async 'fragments are joined, a ping between them is answered'() {
    const ws = await open();
    const pong = once(ws, 'pong');
    ws.send('a'.repeat(1000), { fin: false });
    ws.ping('between');
    ws.send('b'.repeat(1000), { fin: false });
    assert.strictEqual((await pong)[0].toString(), 'between');
    const message = once(ws, 'message');
    ws.send('', { fin: true });
    assert.strictEqual((await message)[0].length, 2000);
    ws.close(3456);
    assert.deepStrictEqual(await closed(ws), [3456, '']);
  },
  async 'a thousand messages in one go come back in order'() {
    const ws = await open();
    const got = [];
    const all = new Promise((resolve) => ws.on('message', (d) => got.push(Number(d)) === 1000 && resolve()));
    for (let i = 0; i < 1000; i++) ws.send(String(i));
    await all;
    got.forEach((n, i) => assert.strictEqual(n, i));
    ws.close();
    assert.deepStrictEqual(await closed(ws), [1005, '']);
  },
  async 'a message that is too big closes with 1009'() {
    const ws = await open();
    ws.send(Buffer.alloc(5 << 20));
    assert.strictEqual((await closed(ws))[0], 1009);
  },
  async 'text that is no UTF-8 closes with 1007'() {
    const ws = await open();
    ws.send(Buffer.from([0x61, 0xff]), { binary: false });
    assert.strictEqual((await closed(ws))[0], 1007);
  },
  async 'an unmasked frame closes with 1002'() {
    const ws = await open();
    ws.send('x', { mask: false });
    assert.strictEqual((await closed(ws))[0], 1002);
  },
  async 'reserved bits close with 1002'() {
    const ws = await open();
    ws._socket.write(Buffer.from([0xc1, 0x81, 0, 0, 0, 0, 0x78]));
    assert.strictEqual((await closed(ws))[0], 1002);
  },
  async 'compression is declined and not needed'() {
    const ws = await open({ perMessageDeflate: true });
    assert.strictEqual(ws.extensions, '');
    ws.send('x'.repeat(5000));
    assert.strictEqual((await once(ws, 'message'))[0].length, 5000);
    ws.terminate();
    await closed(ws);
  },
};

(async () => {
  for (const [name, test] of Object.entries(tests)) {
    const late = setTimeout(() => {
      console.error(`not ok: ${name}: timed out`);
      process.exit(1);
    }, 20000);
    try {
      await test();
    } catch (err) {
      console.error(`not ok: ${name}: ${err.stack}`);
      process.exit(1);
    }
    clearTimeout(late);
    console.log(`ok: ${name}`);
  }
})();
