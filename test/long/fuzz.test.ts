import { connect } from 'node:net'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { createTestDatabase } from '../database.ts'
import { logLines, sampleOf, serve } from '../service.ts'

const MESSAGES = 100_000
const BATCH = 10_000
const CONNECTIONS = 64
/** After this, a client that has no answer, or not all of it, says that it sends no more. */
const PATIENCE_MS = 30
const MAX_RSS_BYTES = 384 * 1024 * 1024
/** More than a process that is warm grows by in each run. */
const MAX_GROWTH_BYTES = 64 * 1024 * 1024

const USER = '{"username":"fuzz","email":"fuzz@example.com"}'
const request = (line: string, headers: string[] = [], body = '') =>
  [
    `${line} HTTP/1.1`,
    'Host: localhost',
    ...headers,
    ...(body ? [`Content-Length: ${body.length}`] : []),
    '',
    body,
  ].join('\r\n')
const JSON_TYPE = 'Content-Type: application/json'

/** What the messages are made of: each is well formed. */
const SEEDS = [
  request('GET /livez'),
  request('GET /users?limit=2&cursor=MToxMA'),
  request('GET /users?username=fuzz&email=fuzz%40example.com'),
  request('GET /users?id=1&id=20&id=999'),
  request('GET /users?usernamePrefix=Us%C3%9F&limit=2&cursor=Mjp1c2VyMTA'),
  request('GET /users/20', ['If-None-Match: *', 'Accept: text/html;q=0.9, */*;q=0.1']),
  request('GET /users', ['Accept: application/x-ndjson', 'X-Request-Id: fuzz']),
  request('GET /users/new', ['Accept: text/html']),
  request('HEAD /users', ['traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01']),
  request('OPTIONS /users', ['Origin: https://app.example', 'Access-Control-Request-Method: PUT']),
  request('POST /users', [JSON_TYPE, 'Idempotency-Key: fuzz'], USER),
  request('POST /users', [JSON_TYPE, 'Transfer-Encoding: chunked'], '').concat(
    `${USER.length.toString(16)}\r\n${USER}\r\n0\r\n\r\n`,
  ),
  request('POST /users', [JSON_TYPE, 'Expect: 100-continue', 'Content-Encoding: gzip'], USER),
  request('PUT /users/20', [JSON_TYPE, 'If-Match: "0", W/"1"'], USER),
  request('PATCH /users/2', ['Content-Type: application/merge-patch+json; charset=utf-8'], '{"email":"b@example.com"}'),
  request('POST /users', [JSON_TYPE], `${USER}${' '.repeat(6000)}`),
  request('DELETE /users/3', ['If-Match: *', 'Connection: keep-alive, close']),
  request(
    'POST /users/new',
    ['Content-Type: application/x-www-form-urlencoded', 'Origin: http://localhost'],
    'username=a&email=a%40b.example',
  ),
  request('GET /openapi.json', ['Accept-Encoding: gzip, br', 'Range: bytes=0-10']),
].map((text) => Buffer.from(text, 'latin1'))

/** What goes in somewhere. */
const PIECES = [
  '\r\n',
  '\n',
  '\r',
  '\0',
  ' ',
  '\t',
  ':',
  '%',
  '%00',
  '%0d%0a',
  '%c3%28',
  '\xff\xfe',
  '\u0000'.repeat(3),
  '"',
  '\\',
  '{',
  '[',
  '0',
  '-1',
  '1e999',
  'Content-Length: 5\r\n',
  'Content-Length: 99999999999999999999\r\n',
  'Transfer-Encoding: chunked\r\n',
  'Transfer-Encoding: gzip\r\n',
  'Host: other\r\n',
  'Connection: upgrade\r\nUpgrade: h2c\r\n',
  'Expect: 100-continue\r\n',
  'ffffffffffffffff\r\n',
  '0\r\n\r\n',
  'GET / HTTP/1.1\r\n\r\n',
  'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n',
  '../',
  '//',
  "'; drop table users; --",
  '\u202e',
  'a'.repeat(5000),
  'X: y\r\n'.repeat(300),
  '['.repeat(3000),
].map((text) => Buffer.from(text))

/** Changes a message up to a few times. */
const change = fc.record({
  how: fc.constantFrom('flip', 'cut', 'end', 'put', 'twice', 'join'),
  at: fc.nat(),
  length: fc.integer({ min: 1, max: 60 }),
  value: fc.nat(255),
  piece: fc.constantFrom(...PIECES),
  other: fc.constantFrom(...SEEDS),
})
type Change = typeof change extends fc.Arbitrary<infer T> ? T : never

function changed(message: Buffer, { how, at, length, value, piece, other }: Change): Buffer {
  const start = at % (message.length + 1)
  const [before, after] = [message.subarray(0, start), message.subarray(start)]
  switch (how) {
    case 'flip':
      return Buffer.concat([before, Buffer.of(value), after.subarray(1)])
    case 'cut':
      return Buffer.concat([before, after.subarray(length)])
    case 'end':
      return before
    case 'put':
      return Buffer.concat([before, piece, after])
    case 'twice':
      return Buffer.concat([before, after.subarray(0, length), after])
    default:
      return Buffer.concat([before, other])
  }
}

const message = fc
  .tuple(fc.constantFrom(...SEEDS), fc.array(change, { minLength: 1, maxLength: 4 }))
  .map(([seed, changes]) => changes.reduce(changed, seed))

/** Sends a message, and gives all that comes back until the connection closes. */
function answersTo(port: number, bytes: Buffer): Promise<string> {
  const { promise, resolve } = Promise.withResolvers<string>()
  const socket = connect({ port, host: '127.0.0.1' })
  const parts: Buffer[] = []
  const end = () => socket.end()
  let timer = setTimeout(end, PATIENCE_MS)
  socket.on('data', (part) => {
    parts.push(part)
    clearTimeout(timer)
    timer = setTimeout(end, PATIENCE_MS / 10)
  })
  socket.on('error', () => {})
  socket.on('close', () => {
    clearTimeout(timer)
    resolve(Buffer.concat(parts).toString('latin1'))
  })
  socket.write(bytes)
  return promise
}

const HEAD = /^HTTP\/1\.1 (\d{3}) [\w ]+\r\n((?:[\w-]+: [^\r\n]*\r\n)*)\r\n/
/** Of a file, a stack or a driver. */
const LEAK = /node_modules|\.[tj]s:\d|\bat .+ \(|postgres|select |insert /i

/** What is wrong with what came back, if something is: it must be whole answers, one after another. */
function faultIn(answers: string): string | undefined {
  for (let rest = answers; rest; ) {
    const [head, status, headers = ''] = HEAD.exec(rest) ?? []
    if (!head) return 'is not HTTP'
    if (status === '500') return 'is a mistake of ours'
    if (/[^\x20-\x7e\r\n]/.test(head)) return 'has a header that is not ASCII'
    const body = rest.slice(head.length)
    if (status !== '100' && !/^x-content-type-options: nosniff\r$/im.test(headers)) return 'lacks a header'
    const length = Number(/^content-length: (\d+)\r$/im.exec(headers)?.[1] ?? 0)
    // An answer to HEAD has none.
    if (body === '') return undefined
    // A stream for HTTP/0.9 or 1.0 has no length: it ends with its connection.
    if (/^connection: close\r$/im.test(headers) && !/^(content-length|transfer-encoding):/im.test(headers))
      return undefined
    if (/^transfer-encoding: chunked\r$/im.test(headers)) {
      const chunks = /^(?:[\da-f]+\r\n[\s\S]*?\r\n)*?0\r\n\r\n/.exec(body)
      // A stream ends with its connection, which garbage after the request ends.
      if (!chunks) return /^[\da-f]+\r\n\{/.test(body) ? undefined : 'has a chunk that is none'
      rest = body.slice(chunks[0].length)
    } else {
      if (body.length < length && !body.startsWith('HTTP/1.1 ')) return 'ends early'
      rest = body.startsWith('HTTP/1.1 ') && length > 0 ? body : body.slice(length)
    }
    if (/problem\+json/.test(headers) && LEAK.test(body.slice(0, length))) return 'tells too much'
  }
  return undefined
}

test(`${MESSAGES} broken requests: the process stays, answers in valid HTTP, tells nothing and does not grow`, {
  timeout: 600_000,
}, async () => {
  const seed = Number(process.env.FUZZ_SEED ?? Date.now() % 2 ** 31)
  console.log(`FUZZ_SEED=${seed} repeats this.`)
  const database = await createTestDatabase()
  await database.sql`insert into users (username, email) select 'user' || i, 'user' || i || '@example.com' from generate_series(1, 20) i`
  const api = await serve({
    DATABASE_URL: database.url,
    METRICS_PORT: '0',
    MAX_STREAMS: '100',
    SLOW_REQUEST_MS: '0',
    MAX_BODY_BYTES: '4096',
    REQUEST_TIMEOUT_MS: '2000',
    HEADERS_TIMEOUT_MS: '2000',
  })
  const { pid } = api.process
  const statuses = new Set<string>()
  const sizes: number[] = []
  for (let batch = 0; batch < MESSAGES / BATCH; batch++) {
    const messages = fc.sample(message, { seed: seed + batch, numRuns: BATCH }).values()
    const client = async () => {
      for (const bytes of messages) {
        const answers = await answersTo(api.port, bytes)
        const fault = faultIn(answers)
        if (fault)
          expect.fail(
            `With FUZZ_SEED=${seed}, what comes back ${fault}:\n${answers.slice(0, 2000)}\nto\n${bytes.toString('latin1').slice(0, 2000)}`,
          )
        for (const [, status = ''] of answers.matchAll(/HTTP\/1\.1 (\d{3}) /g)) statuses.add(status)
      }
    }
    await Promise.all(Array.from({ length: CONNECTIONS }, client))
    expect((await fetch(`${api.url}/users/20`)).status).toBe(200)
    // Or it would be created once in all, perhaps for a client that had given up, or never, once a PUT has taken its name.
    await database.sql`delete from users where id > 20`
    await database.sql`update users set username = 'user' || id, email = 'user' || id || '@example.com'`
    sizes.push(sampleOf(await api.metrics(), 'process_resident_memory_bytes'))
  }
  expect([api.process.pid, api.process.exitCode]).toEqual([pid, null])
  expect(Math.max(...sizes), String(sizes)).toBeLessThan(MAX_RSS_BYTES)
  expect((sizes.at(-1) ?? 0) - (sizes[1] ?? 0), String(sizes)).toBeLessThan(MAX_GROWTH_BYTES)
  // It met most of what there is, so it was not stopped at the door.
  for (const status of ['100', '200', '201', '204', '304', '400', '404', '405', '409', '412', '413', '415', '422']) {
    expect([...statuses]).toContain(status)
  }
  await expect.poll(async () => sampleOf(await api.metrics(), 'http_server_active_requests')).toBe(0)
  const lines = logLines(await api.stop())
  expect(lines.filter(({ level }) => ['error', 'fatal'].includes(level))).toEqual([])
  await database.drop()
})
