import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { createTestDatabase } from '../database.ts'
import { run } from '../process.ts'
import { startProxyTo } from '../proxy.ts'
import { logLines } from '../service.ts'

/** Part of every username and email address here. */
const MARK = 'xq7marked'
const CLIENTS = 12
/** Answered changes after which a process is made to end. */
const CHANGES = 150
/** Throws where nobody catches it. */
const CRASH = 'data:text/javascript,process.on("SIGUSR2", () => { throw new Error("crash") })'

/** How a process ends, amid changes. While PostgreSQL is silent, some have no outcome yet. */
const ENDS = {
  'SIGTERM that lets all of them end': { signals: ['SIGTERM'], silent: false, code: 0 },
  'SIGTERM with less time than they need': { signals: ['SIGTERM'], silent: true, code: 0 },
  'a second signal': { signals: ['SIGTERM', 'SIGINT'], silent: true, code: 1 },
  'a mistake that nobody caught': { signals: ['SIGUSR2'], silent: true, code: 1 },
} as const

type Event = { requestId: string; operation: string; user?: number; version?: number; outcome: string }
type Sent = { requestId: string; status: number; operation: string; version: string | null }

const key = ({ operation, user, version }: Omit<Event, 'requestId' | 'outcome'>) => `${operation} ${user} ${version}`
const tally = (keys: string[]) => Map.groupBy(keys, (each) => each)

test('every change that was committed is an event, once, or one of unknown outcome, whatever fails', {
  timeout: 240_000,
}, async () => {
  const database = await createTestDatabase()
  const { sql } = database
  // PostgreSQL's own trail, which is committed with the change.
  await sql.unsafe(`
    create table changes (operation text, "user" int, version int);
    create function note() returns trigger language plpgsql as $$ begin
      insert into changes values (case tg_op when 'INSERT' then 'create' else lower(tg_op) end,
        coalesce(new.id, old.id), coalesce(new.version, old.version));
      return null; end $$;
    create trigger note after insert or update or delete on users for each row execute function note()`)
  const { network, url } = await startProxyTo(database.url)
  const settings = { AUDIT_LOG: 'on', LOG_LEVEL: 'warn', DEADLINE_MS: '1500', SHUTDOWN_TIMEOUT_MS: '1000' }
  const env = { DATABASE_URL: url, HOST: '127.0.0.1', DRAIN_DELAY_MS: '0', ...settings }
  const sent: Sent[] = []
  const events: Event[] = []
  const ids: number[] = []
  let count = 0

  /** One request that changes something, or would if it were not refused or repeated. */
  async function change(origin: string) {
    count++
    const n = count
    const id = ids[Math.floor(Math.random() * ids.length)] ?? 1
    const name = `${MARK}${n % 7 === 0 ? n - 50 : n}`
    const userOf = (username: string) => ({ username, email: `${username}@example.com` })
    const user = userOf(name)
    const repeated = `key${n >> 4}`
    const [operation, method, path, body, more] = [
      ['create', 'POST', '/users', user, {}],
      ['create', 'POST', '/users', userOf(MARK + repeated), { 'idempotency-key': repeated }],
      ['update', 'PUT', `/users/${id}`, user, {}],
      ['update', 'PATCH', `/users/${id}`, { email: user.email }, { 'if-match': `"${1 + (n % 3)}"` }],
      ['update', 'PATCH', `/users/${id}`, {}, {}],
      ['delete', 'DELETE', `/users/${id}`, undefined, n % 2 ? {} : { 'if-match': '"2"' }],
    ][Math.floor(Math.random() * 6)] as [string, string, string, object | undefined, Record<string, string>]
    const requestId = `request${n}`
    const headers = { 'content-type': 'application/json', 'x-request-id': requestId, ...more }
    // Some hang up before their answer.
    const signal = n % 25 === 0 ? AbortSignal.timeout(2) : null
    const init = { method, headers, signal, ...(body && { body: JSON.stringify(body) }) }
    const response = await fetch(origin + path, init).catch(() => undefined)
    if (!response) return undefined
    const { status } = response
    sent.push({ requestId, status, operation, version: response.headers.get('etag') })
    if (status === 201) ids.push(Number(response.headers.get('location')?.slice('/users/'.length)))
    await response.body?.cancel().catch(() => {})
    return status
  }

  async function round({ signals, silent, code }: (typeof ENDS)[keyof typeof ENDS]) {
    const api = run(process.execPath, ['--import', CRASH, 'src/main.ts'], { ...env, PORT: '0', LOG_LEVEL: 'info' })
    const [, port] = await api.printed(/"port":(\d+),"msg":"listening"/)
    let [answered, gone] = [0, false]
    const clients = Array.from({ length: CLIENTS }, async () => {
      while (!gone) {
        const status = await change(`http://127.0.0.1:${port}`)
        if (status && status < 300) answered++
        if (status === 503 || !status) await sleep(10)
      }
    })
    for (let cuts = 0; answered < CHANGES; cuts++) {
      const before = answered
      await sleep(Math.random() * 100)
      // However slow the machine is, some are answered between two cuts.
      await expect.poll(() => answered, { timeout: 30_000 }).toBeGreaterThan(before)
      if (cuts % 3 === 2) network.cut()
      // Longer than the deadline of a change.
      if (cuts === 4) {
        network.silence(true)
        await sleep(2000)
        network.silence(false)
      }
    }
    network.silence(silent)
    await sleep(50)
    for (const signal of signals) {
      api.process.kill(signal)
      if (signals.length > 1) await api.printed(/"msg":"stopping"/)
    }
    expect(await api.exited).toBe(code)
    gone = true
    await Promise.all(clients)
    network.silence(false)
    network.cut()
    const lines = logLines(api.stdout())
    expect(lines.filter(({ msg }) => msg === 'request failed')).toEqual([])
    events.push(...lines.filter(({ msg }) => msg === 'audit'))
    expect(api.output()).not.toContain(MARK)
  }

  for (const end of Object.values(ENDS)) await round(end)
  // What PostgreSQL still does for connections that are gone ends now, in one way or the other.
  await expect
    .poll(
      () => sql`
        select pg_terminate_backend(pid) from pg_stat_activity
        where datname = current_database() and application_name = 'users-api'`,
    )
    .toHaveLength(0)
  const committed = (await sql<Event[]>`select * from changes`).map(key)
  const done = events.filter(({ outcome }) => outcome === 'done')
  const unknown = events.filter(({ outcome }) => outcome === 'unknown')
  expect(done.length + unknown.length).toBe(events.length)

  expect(new Set(events.map(({ requestId }) => requestId)).size).toBe(events.length)
  expect(new Set(committed).size).toBe(committed.length)
  expect(new Set(done.map(key)).size).toBe(done.length)
  // Nothing is told that did not happen.
  const happened = new Set(committed)
  expect(done.map(key).filter((each) => !happened.has(each))).toEqual([])
  // What happened without being told is one of those whose outcome was unknown.
  const told = new Set(done.map(key))
  const perhaps = tally(unknown.map(({ operation, user }) => `${operation} ${user}`))
  // An unknown event has no version, and that of a creation no user.
  const withoutVersion = (each: string) => each.replace(/^create .*/, 'create undefined').replace(/ \d+$/, '')
  const untold = tally(committed.filter((each) => !told.has(each)).map(withoutVersion))
  for (const [each, times] of untold) expect(perhaps.get(each)?.length ?? 0, each).toBeGreaterThanOrEqual(times.length)

  // Answers agree with events.
  const byRequest = new Map(events.map((event) => [event.requestId, event]))
  for (const { requestId, status, operation, version } of sent) {
    const event = byRequest.get(requestId)
    if (event) expect([event.operation, event.outcome]).toEqual([operation, status < 300 ? 'done' : 'unknown'])
    if (event && status < 300 && version) expect(`"${event.version}"`).toBe(version)
    if (event && status >= 300) expect(status).toBe(503)
    if (status === 204) expect(event).toBeDefined()
  }
  const made = sent.filter(({ status, operation }) => status === 201 && operation === 'create')
  expect(made.filter(({ requestId }) => byRequest.has(requestId)).length).toBeGreaterThan(CHANGES / 4)
  const operations = new Set(events.map(({ operation, outcome }) => `${operation} ${outcome}`))
  for (const each of ['create', 'update', 'delete']) expect(operations).toContain(`${each} done`)
  expect(unknown.length).toBeGreaterThan(0)
  expect(done.length).toBeGreaterThan(CHANGES)
  network.close()
  await database.drop()
})
