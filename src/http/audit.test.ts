import { once } from 'node:events'
import { connect } from 'node:net'
import { afterAll, beforeAll, beforeEach, expect, onTestFinished, test } from 'vitest'
import { startIssuer } from '../../dev/issuer.ts'
import { freePort } from '../../dev/postgres.ts'
import { createTestDatabase, type TestDatabase, waitingForLock } from '../../test/database.ts'
import { run } from '../../test/process.ts'
import { startProxyTo } from '../../test/proxy.ts'
import { logLines } from '../../test/service.ts'

let database: TestDatabase
beforeAll(async () => {
  database = await createTestDatabase()
})
beforeEach(() => database.sql`truncate users restart identity`)
afterAll(() => database.drop())

const CRASH = 'data:text/javascript,process.on("SIGUSR2", () => { throw new Error("crash") })'
const traceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'
const json = { 'content-type': 'application/json' }
const user = (name: string) => ({ username: name, email: `${name}@example.com` })

async function start(env: Record<string, string> = {}) {
  const settings = { DATABASE_URL: database.url, PORT: '0', HOST: '127.0.0.1', DRAIN_DELAY_MS: '0', AUDIT_LOG: 'on' }
  const api = run(process.execPath, ['--import', CRASH, 'src/main.ts'], { ...settings, ...env })
  const [, metricsPort, port] = await api.printed(/(?:"metricsPort":(\d+),)?"port":(\d+),"(?:msg|message)":"listening"/)
  return {
    ...api,
    port: Number(port),
    metrics: async () => (await fetch(`http://127.0.0.1:${metricsPort}/metrics`)).text(),
    async send(method: string, path: string, body?: object, headers: Record<string, string> = {}) {
      const init = { method, headers: { ...json, ...headers }, ...(body && { body: JSON.stringify(body) }) }
      return (await fetch(`http://127.0.0.1:${port}${path}`, init)).status
    },
    async stop(signal: NodeJS.Signals = 'SIGTERM') {
      api.process.kill(signal)
      return api.exited
    },
    /** The events, without what each line has. */
    events: () =>
      logLines(api.stdout())
        .filter(({ msg, message }) => (msg ?? message) === 'audit')
        .map(({ time, level, msg, requestId, method, ...event }) => event),
  }
}

const created = (id: number) => ({ route: '/users', operation: 'create', user: id, version: 1, outcome: 'done' })

test('an event says whose token it was: two issuers may call different people the same', async () => {
  const issuer = await startIssuer()
  onTestFinished(issuer.close)
  const iap = { iss: 'https://cloud.google.com/iap', aud: '/projects/1' }
  const ofIap = { AUTH_IAP_AUDIENCE: iap.aud, AUTH_IAP_JWKS_URL: issuer.jwksUrl, AUTH_IAP_SCOPES: 'users:write' }
  const api = await start({ ...issuer.env, ...ofIap })
  const authorization = `Bearer ${await issuer.sign({ sub: '7', scope: 'users:write' })}`
  const assertion = await issuer.sign({ ...iap, sub: '7' }, { typ: 'JWT' })
  expect(await api.send('POST', '/users', user('ann'), { authorization })).toBe(201)
  expect(await api.send('POST', '/users', user('bob'), { 'x-goog-iap-jwt-assertion': assertion })).toBe(201)
  expect(await api.stop()).toBe(0)
  expect(api.events()).toEqual([
    { ...created(1), issuer: issuer.url, subject: '7' },
    { ...created(2), issuer: iap.iss, subject: '7' },
  ])
})

test('each change is one event with its request, its row and its version, and nothing that changed nothing is one', async () => {
  const api = await start()
  const key = { 'idempotency-key': 'key' }
  expect(await api.send('POST', '/users', user('ann'), { ...key, traceparent, 'x-request-id': 'mine' })).toBe(201)
  await expect
    .poll(() => logLines(api.stdout()).at(-1))
    .toEqual({
      level: 'info',
      time: expect.any(String),
      requestId: 'mine',
      method: 'POST',
      ...created(1),
      trace_id: '0af7651916cd43dd8448eb211c80319c',
      span_id: 'b7ad6b7169203331',
      trace_flags: 1,
      msg: 'audit',
    })
  const statuses = [
    // The same again, and what is refused.
    await api.send('POST', '/users', user('ann'), key),
    await api.send('POST', '/users', user('bob'), key),
    await api.send('POST', '/users', user('ann')),
    await api.send('POST', '/users', { username: '' }),
    await api.send('PATCH', '/users/1', {}),
    await api.send('PUT', '/users/1', user('bob'), { 'if-match': '"7"' }),
    await api.send('PUT', '/users/99', user('bob')),
    await api.send('DELETE', '/users/1', undefined, { 'if-match': '"7"' }),
    await api.send('PUT', '/users/1', user('bob')),
    await api.send('PATCH', '/users/1', user('zoe')),
    await api.send('DELETE', '/users/1'),
    await api.send('DELETE', '/users/1'),
  ]
  expect(statuses).toEqual([201, 422, 409, 422, 200, 412, 404, 412, 200, 200, 204, 404])
  expect(await api.stop()).toBe(0)
  const changed = { route: '/users/:id', user: 1, outcome: 'done' }
  expect(api.events().slice(1)).toEqual([
    { ...changed, operation: 'update', version: 2 },
    { ...changed, operation: 'update', version: 3 },
    { ...changed, operation: 'delete', version: 3 },
  ])
  expect(api.output()).not.toMatch(/ann|bob|zoe/)
})

test('the forms of the page are in the trail, too', async () => {
  const api = await start()
  const form = { 'content-type': 'application/x-www-form-urlencoded', 'sec-fetch-site': 'same-origin' }
  const submit = (path: string, values: Record<string, string>) =>
    fetch(`http://127.0.0.1:${api.port}${path}`, {
      method: 'POST',
      headers: form,
      body: new URLSearchParams(values).toString(),
      redirect: 'manual',
    }).then(({ status }) => status)
  expect(await submit('/users/new', user('ann'))).toBe(303)
  expect(await submit('/users/new', user('ann'))).toBe(409)
  expect(await submit('/users/1/edit', { ...user('bob'), etag: '"7"' })).toBe(412)
  expect(await submit('/users/1/edit', { ...user('bob'), etag: '"1"' })).toBe(303)
  expect(await submit('/users/1/delete', { etag: '"2"' })).toBe(303)
  expect(await api.stop()).toBe(0)
  expect(api.events()).toEqual([
    { ...created(1), route: '/users/:id' },
    { route: '/users/:id/edit', operation: 'update', user: 1, version: 2, outcome: 'done' },
    { route: '/users/:id/delete', operation: 'delete', user: 1, version: 2, outcome: 'done' },
  ])
})

test('of requests that share a statement each has its event, unless it was refused', async () => {
  const api = await start()
  const names = Array.from({ length: 40 }, (_, i) => `name${i % 30}`)
  const statuses = await Promise.all(names.map((name) => api.send('POST', '/users', user(name))))
  expect(statuses.filter((status) => status === 201)).toHaveLength(30)
  expect(await api.stop()).toBe(0)
  const rows = await database.sql`select id::int from users order by id`
  const users = api.events().map((event) => event.user)
  expect(users.toSorted((a, b) => a - b)).toEqual(rows.map(({ id }) => id))
})

test('a change whose client hung up before its answer has its event', async () => {
  const api = await start()
  await database.sql.begin(async (transaction) => {
    await transaction`lock table users in share mode`
    const body = JSON.stringify(user('ann'))
    const socket = connect(api.port, '127.0.0.1')
    socket.write(
      `POST /users HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
    )
    await waitingForLock(database, 1)
    socket.destroy()
    await once(socket, 'close')
  })
  await api.printed(/"msg":"audit"/)
  expect(await api.stop()).toBe(0)
  expect(api.events()).toEqual([created(1)])
})

test('a change is of unknown outcome if its connection broke, or its answer did not come in time', async () => {
  const { network, url } = await startProxyTo(database.url)
  const api = await start({ DATABASE_URL: url, DEADLINE_MS: '2000' })
  expect(await api.send('POST', '/users', user('ann'))).toBe(201)
  /** Two changes whose answers are kept from the service. */
  const lose = (name: string, fail: () => void) =>
    database.sql.begin(async (transaction) => {
      await transaction`lock table users in share mode`
      const changes = [api.send('POST', '/users', user(name)), api.send('PUT', '/users/1', user(`${name}2`))]
      await waitingForLock(database, 2)
      fail()
      return [Promise.all(changes)]
    })
  const broken = await lose('bob', () => network.cut())
  expect(await broken[0]).toEqual([503, 503])
  await expect.poll(() => api.send('GET', '/users')).toBe(200)
  const silent = await lose('eve', () => network.silence(true))
  expect(await silent[0]).toEqual([503, 503])
  network.silence(false)
  expect(await api.stop()).toBe(0)
  network.close()
  const unknown = [
    { route: '/users', operation: 'create', outcome: 'unknown' },
    { route: '/users/:id', operation: 'update', user: 1, outcome: 'unknown' },
  ]
  const sorted = api.events().toSorted((a, b) => (a.operation < b.operation ? -1 : 1))
  expect(sorted).toEqual([created(1), unknown[0], unknown[0], unknown[1], unknown[1]])
})

test.each([
  ['a mistake that nobody caught', ['SIGUSR2'], 1],
  ['a second signal', ['SIGTERM', 'SIGTERM'], 1],
  ['the end of SHUTDOWN_TIMEOUT_MS', ['SIGTERM'], 0],
] as const)('a change that %s interrupts is of unknown outcome', async (_, signals, code) => {
  const api = await start({ DEADLINE_MS: '60000', SHUTDOWN_TIMEOUT_MS: '500' })
  await database.sql.begin(async (transaction) => {
    await transaction`lock table users in share mode`
    const answers = [api.send('POST', '/users', user('ann')), api.send('POST', '/users', user('bob'))]
    const settled = Promise.allSettled(answers)
    await waitingForLock(database, 1)
    for (const signal of signals) {
      api.process.kill(signal)
      if (signals.length > 1) await api.printed(/"msg":"stopping"/)
    }
    expect(await api.exited).toBe(code)
    await settled
  })
  const unknown = { route: '/users', operation: 'create', outcome: 'unknown' }
  // One was with PostgreSQL. The other, if it was not yet sent, was not made.
  expect(api.events()).toEqual(expect.arrayContaining([unknown]))
  expect(api.events().filter(({ outcome }) => outcome !== 'unknown')).toEqual([])
})

test('while the log is full nothing is changed, and what was under way is told of when it is read again', async () => {
  const api = await start({ LOG_REQUESTS: '1', DEADLINE_MS: '60000', METRICS_PORT: '0' })
  const long = { 'x-request-id': 'x'.repeat(128) }
  expect(await api.send('POST', '/users', user('first'))).toBe(201)
  const underWay = await database.sql.begin(async (transaction) => {
    await transaction`lock table users in share mode`
    const answers = Promise.all(Array.from({ length: 20 }, (_, i) => api.send('POST', '/users', user(`name${i}`))))
    await waitingForLock(database, 1)
    await expect.poll(api.metrics).toContain('http_server_active_requests 20\n')
    api.process.stdout?.pause()
    // It changes nothing, but is refused as soon as nothing may be changed.
    while ((await api.send('PATCH', '/users/1', {})) === 200) {
      await Promise.all(Array.from({ length: 100 }, () => api.send('GET', '/livez', undefined, long)))
    }
    expect(await api.send('PATCH', '/users/1', {})).toBe(503)
    expect(await api.send('GET', '/users/1')).toBe(200)
    // More lines than the pipe can take meanwhile, so that some are lost.
    await Promise.all(Array.from({ length: 1000 }, () => api.send('GET', '/livez', undefined, long)))
    return [answers]
  })
  expect(await underWay[0]).toEqual(Array.from({ length: 20 }, () => 201))
  expect(await api.send('DELETE', '/users/1')).toBe(503)
  api.process.stdout?.resume()
  await expect.poll(() => api.send('DELETE', '/users/1')).toBe(204)
  expect(await api.stop()).toBe(0)
  expect(api.events().filter(({ operation }) => operation === 'create')).toHaveLength(21)
  expect(api.events().at(-1)).toMatchObject({ operation: 'delete', user: 1 })
  expect(api.output()).toMatch(/lines of the log were lost/)
})

test('a stop waits for its log to be read, and ends with 1 if it is not', async () => {
  const ended = async (isRead: boolean) => {
    const api = await start({ SHUTDOWN_TIMEOUT_MS: '3000', LOG_REQUESTS: '1' })
    api.process.stdout?.pause()
    const long = { 'x-request-id': 'x'.repeat(128) }
    while ((await api.send('PATCH', '/users/1', {})) !== 503) {
      await Promise.all(Array.from({ length: 100 }, () => api.send('GET', '/livez', undefined, long)))
    }
    api.process.kill('SIGTERM')
    // Longer than it would wait without an audit trail.
    if (isRead) setTimeout(() => api.process.stdout?.resume(), 1000)
    const [code] = await once(api.process, 'exit')
    api.process.stdout?.resume()
    await api.exited
    return [code, api.output().includes('lines of the log were lost')]
  }
  expect(await ended(true)).toEqual([0, true])
  expect(await ended(false)).toEqual([1, false])
})

test('it is written whatever LOG_LEVEL is', async () => {
  const port = await freePort()
  const env = { DATABASE_URL: database.url, HOST: '127.0.0.1', DRAIN_DELAY_MS: '0', AUDIT_LOG: 'on' }
  const api = run(process.execPath, ['src/main.ts'], { ...env, PORT: String(port), LOG_LEVEL: 'silent' })
  const init = { method: 'POST', headers: json, body: JSON.stringify(user('ann')) }
  const post = () => fetch(`http://127.0.0.1:${port}/users`, init).catch(() => undefined)
  await expect.poll(async () => (await post())?.status).toBe(201)
  api.process.kill('SIGTERM')
  expect(await api.exited).toBe(0)
  expect(logLines(api.stdout())).toMatchObject([{ level: 'info', msg: 'audit', user: 1 }])
})

test('it names the subject of the token, in one line whatever the subject is', async () => {
  const issuer = await startIssuer()
  onTestFinished(issuer.close)
  const subject = 'ann\u2028{"msg":"audit"}\u2029\\ "'
  const authorization = `Bearer ${await issuer.sign({ sub: subject, scope: 'users:write' })}`
  const api = await start(issuer.env)
  expect(await api.send('POST', '/users', user('ann'), { authorization })).toBe(201)
  expect(await api.send('POST', '/users', user('bob'))).toBe(401)
  expect(await api.stop()).toBe(0)
  expect(api.events()).toEqual([{ ...created(1), issuer: issuer.url, subject }])
  expect(api.stdout()).not.toMatch(/[\u2028\u2029]/)
})

test('it has the names of LOG_FORMAT', async () => {
  const api = await start({ LOG_FORMAT: 'google' })
  expect(await api.send('POST', '/users', user('ann'))).toBe(201)
  expect(await api.stop()).toBe(0)
  const line = { severity: 'INFO', message: 'audit', user: 1 }
  expect(logLines(api.stdout())).toContainEqual(expect.objectContaining(line))
})

test('it is off unless it is asked for', async () => {
  const api = await start({ AUDIT_LOG: '' })
  expect(await api.send('POST', '/users', user('ann'))).toBe(201)
  expect(await api.stop()).toBe(0)
  expect(api.events()).toEqual([])
})
