import { execFileSync, type StdioOptions, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, constants, createReadStream, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest'
import { freePort } from '../../dev/postgres.ts'
import { createTestDatabase, type TestDatabase, waitingForLock } from '../../test/database.ts'
import { main, ROOT, run } from '../../test/process.ts'
import { logLines, serve } from '../../test/service.ts'
import { parseConfig } from '../config.ts'
import { DatabaseUnavailable } from '../db/unavailable.ts'
import { createLog, describeError, openOutput } from './log.ts'

/** Their lines are more than may wait to be written and than a pipe holds. */
const REQUESTS = 6000
const CLIENTS = 20
const LONG_ID = { 'x-request-id': 'x'.repeat(128) }

/** The service with a log of its own, without a database. */
async function serveTo(stdout: number | 'pipe') {
  const port = await freePort()
  const stdio: StdioOptions = ['ignore', stdout, 'inherit']
  const env = { ...process.env, PORT: String(port), HOST: '127.0.0.1', LOG_REQUESTS: '1', DB_PORT: '1' }
  const times = { STARTUP_WAIT_MS: '0', DRAIN_DELAY_MS: '0' }
  const child = spawn(process.execPath, ['src/main.ts'], { cwd: ROOT, stdio, env: { ...env, ...times } })
  onTestFinished(() => void child.kill('SIGKILL'))
  const exited = once(child, 'exit')
  const get = async (path: string) => (await fetch(`http://127.0.0.1:${port}${path}`, { headers: LONG_ID })).status
  await vi.waitFor(() => get('/livez'), { timeout: 60_000 })
  return {
    /** Makes a line of the log with each request. */
    async load() {
      const client = async () => {
        for (let i = 0; i < REQUESTS / CLIENTS; i++) expect(await get('/nothing')).toBe(404)
      }
      await Promise.all(Array.from({ length: CLIENTS }, client))
    },
    stdout: child.stdout,
    async stop() {
      child.kill('SIGTERM')
      expect(await exited).toEqual([0, null])
    },
  }
}

function folder() {
  const path = mkdtempSync(join(tmpdir(), 'users-api-log-'))
  onTestFinished(() => rmSync(path, { recursive: true }))
  return path
}

test('a log that cannot be written costs no request, and does not keep the process from ending', async () => {
  const path = join(folder(), 'log')
  writeFileSync(path, '')
  // As on a full disk, each write fails.
  const api = await serveTo(openSync(path, constants.O_RDONLY))
  await api.load()
  await api.stop()
})

test('a pipe that nobody reads costs no request, and does not keep the process from ending', async () => {
  const path = join(folder(), 'pipe')
  execFileSync('mkfifo', [path])
  const api = await serveTo(openSync(path, constants.O_RDWR))
  await api.load()
  await api.stop()
})

test('lines that are lost while nobody reads are counted, and told of when writing works again', async () => {
  const api = await serveTo('pipe')
  await api.load()
  let log = ''
  api.stdout?.setEncoding('utf8').on('data', (text) => {
    log += text
  })
  await vi.waitFor(() => expect(log).toMatch(/were lost"\}\n$/), { timeout: 30_000 })
  await api.stop()
  const lines = log
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line))
  const told = lines.filter(({ msg }) => msg === 'lines of the log were lost')
  const lost = told.reduce((sum, line) => sum + line.lines, 0)
  expect(lost).toBeGreaterThan(0)
  const written = lines.filter(({ msg }) => msg === 'request').length
  expect(written + lost).toBeGreaterThanOrEqual(REQUESTS)
})

test('a log whose writes failed goes on by itself as soon as they succeed, however much has been lost', async () => {
  const path = join(folder(), 'pipe')
  execFileSync('mkfifo', [path])
  const reader = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
  const writer = openSync(path, constants.O_WRONLY)
  const api = await serveTo(writer)
  for (const fd of [reader, writer]) closeSync(fd)
  // Nobody has the pipe open: each write fails.
  await api.load()
  const lines = createReadStream(path, 'utf8')
  let log = ''
  lines.on('data', (text) => {
    log += text
  })
  await vi.waitFor(() => expect(log).toMatch(/were lost"\}\n$/), { timeout: 30_000 })
  await api.stop()
})

test('an output that is ending may be asked again to end, as by a second signal', async () => {
  const script = `
    import { openOutput } from './src/http/log.ts'
    const output = openOutput()
    output.write('line\\n')
    console.error(await Promise.all([output.end(), output.end()]), await output.end())`
  const program = run(process.execPath, ['--input-type=module', '--eval', script])
  expect(await program.exited).toBe(0)
  expect([program.stdout(), program.stderr()]).toEqual(['line\n', '[ true, true ] true\n'])
})

describe('a request', () => {
  const traceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'
  const headers = { traceparent, 'x-request-id': 'mine' }
  let database: TestDatabase
  let url: string
  beforeAll(async () => {
    database = await createTestDatabase()
    await database.sql`alter table users add constraint forbidden check (username <> 'forbidden')`
    url = database.url
    return () => database.drop()
  })

  const post = (origin: string, username: string) =>
    fetch(`${origin}/users`, {
      method: 'POST',
      headers: { ...headers, 'content-type': 'application/json' },
      body: JSON.stringify({ username, email: `${username}@example.com` }),
    })

  test('that fails is a line with its id, its trace and its cause, whatever the share of those that are logged', async () => {
    const api = await serve({ DATABASE_URL: url })
    expect((await post(api.url, 'fine')).status).toBe(201)
    expect((await post(api.url, 'forbidden')).status).toBe(500)
    const lines = logLines(await api.stop()).filter(({ requestId }) => requestId)
    expect(lines).toEqual([
      {
        level: 'error',
        time: expect.any(String),
        requestId: 'mine',
        method: 'POST',
        route: '/users',
        error: { code: '23514', routine: 'ExecConstraints', table: 'users', constraint: 'forbidden' },
        trace_id: '0af7651916cd43dd8448eb211c80319c',
        span_id: 'b7ad6b7169203331',
        trace_flags: 1,
        msg: 'request failed',
      },
    ])
  })

  test('that finds no database is a line with the reason', async () => {
    const api = await serve({ DB_HOST: '127.0.0.1', DB_PORT: '1', STARTUP_WAIT_MS: '0' })
    await api.printed(/database unavailable/)
    expect((await fetch(`${api.url}/users/1`, { headers })).status).toBe(503)
    const line = logLines(await api.stop()).find(({ requestId }) => requestId === 'mine')
    expect(line).toMatchObject({
      level: 'warn',
      route: '/users/:id',
      error: { reason: expect.stringContaining('127') },
    })
  })

  test('is a line if LOG_REQUESTS is 1, about every other if it is 0.5, and no line if it is 0', async () => {
    const linesAt = async (LOG_REQUESTS: string) => {
      const api = await serve({ DATABASE_URL: url, LOG_REQUESTS, SLOW_REQUEST_MS: '0' })
      for (let i = 0; i < 200; i++) await fetch(`${api.url}/livez`)
      return logLines(await api.stop()).filter(({ msg, route }) => msg === 'request' && route === '/livez').length
    }
    expect(await linesAt('1')).toBe(200)
    expect(await linesAt('0')).toBe(0)
    // Fewer than 40 or more than 160 of 200 come once in 10^17 times.
    expect(Math.abs((await linesAt('0.5')) - 100)).toBeLessThan(60)
  })

  test('that is slower than SLOW_REQUEST_MS is always a line', async () => {
    const api = await serve({ DATABASE_URL: url, SLOW_REQUEST_MS: '300' })
    await database.sql.begin(async (transaction) => {
      await transaction`lock table users in access exclusive mode`
      const slow = fetch(`${api.url}/users/1`, { headers })
      await waitingForLock(database, 1)
      await sleep(400)
      return [slow]
    })
    const lines = logLines(await api.stop()).filter(({ msg }) => msg === 'slow request')
    expect(lines).toMatchObject([{ level: 'warn', requestId: 'mine', route: '/users/:id', status: 200 }])
    expect(lines[0].ms).toBeGreaterThanOrEqual(300)
  })

  test('has the fields that Google Cloud reads', async () => {
    const api = await serve({ DATABASE_URL: url, LOG_FORMAT: 'google' })
    await post(api.url, 'forbidden')
    const line = logLines(await api.stop()).find(({ requestId }) => requestId)
    expect(line).toMatchObject({
      severity: 'ERROR',
      message: 'request failed',
      'logging.googleapis.com/trace': '0af7651916cd43dd8448eb211c80319c',
      'logging.googleapis.com/spanId': 'b7ad6b7169203331',
      'logging.googleapis.com/trace_sampled': true,
    })
  })

  test('is readable with LOG_FORMAT=pretty', async () => {
    const api = main([], { DATABASE_URL: url, PORT: '0', HOST: '127.0.0.1', DRAIN_DELAY_MS: '0', LOG_FORMAT: 'pretty' })
    const [, port] = await api.printed(/^\d\d:\d\d:\d\d\.\d{3} INFO {2}listening port=(\d+)$/m)
    await post(`http://127.0.0.1:${port}`, 'forbidden')
    await api.printed(/^[\d:.]+ ERROR request failed requestId="mine" .*"code":"23514"/m)
    api.process.kill('SIGTERM')
    expect(await api.exited).toBe(0)
  })
})

test('the levels have the names that Google Cloud knows', () => {
  const lines: string[] = []
  const output = Object.assign(openOutput(), { write: (line: string) => lines.push(line) > 0 })
  const log = createLog(parseConfig({ LOG_LEVEL: 'trace', LOG_FORMAT: 'google' }), output)
  for (const level of ['fatal', 'error', 'warn', 'info', 'debug', 'trace'] as const) log[level]('word')
  expect(lines.map((line) => JSON.parse(line).severity)).toEqual([
    'CRITICAL',
    'ERROR',
    'WARNING',
    'INFO',
    'DEBUG',
    'DEBUG',
  ])
})

test.each([
  [new TypeError('it holds alice@example.com'), { name: 'TypeError', stack: expect.any(Array) }],
  [new DatabaseUnavailable('it does not answer', 'lost'), { reason: 'it does not answer' }],
])('of an error only what holds no values is logged: %s', (error, described) => {
  expect(describeError(error)).toEqual(described)
  expect(JSON.stringify(describeError(error))).not.toContain('alice')
  const stack = expect.not.arrayContaining([expect.stringContaining('alice')])
  expect(describeError(new TypeError('x\n    at alice'))).toMatchObject({ stack })
  expect(describeError(Object.assign(new Error('alice'), { code: 'EBADF' }))).toMatchObject({
    name: 'Error',
    code: 'EBADF',
  })
})
