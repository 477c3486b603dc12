import { setTimeout as sleep } from 'node:timers/promises'
import { expect, onTestFinished, test } from 'vitest'
import { startApi } from '../api.ts'
import { slowness } from '../machine.ts'
import { startReplication } from '../replication.ts'

const MAX_LAG_MS = 3000
const OUTAGE_MS = 4000
const WRITERS = 4
const USERS_OF_A_WRITER = 20
/** The longest wait of a read while either server answers, on a machine that nobody else uses. */
const MAX_WAIT_MS = 1000

/** A change of a user: the version of its email, or none where it was deleted. Times are those of performance.now(). */
type Change = { version: number | undefined; begun: number; done: number }
type Seen = { id: number; email: string }

const versionOf = ({ email }: Seen) => Number(/v(\d+)@/.exec(email)?.[1])

/** What a read may not have seen, if all that was done before `time` has to be in it. */
function faultOf(changes: Change[], seen: Seen | undefined, time: number, answered: number) {
  const last = changes.findLastIndex(({ done }) => done <= time)
  // Each change that was begun since may be in it or not.
  const possible = changes.slice(Math.max(last, 0)).filter(({ begun }) => begun <= answered)
  if (last < 0 && !seen) return undefined
  const version = seen && versionOf(seen)
  if (possible.some((change) => change.version === version)) return undefined
  return { version, possible, time, answered }
}

test('random writes and reads, while servers fail: nothing is lost, too late, or without an answer', async () => {
  const pair = await startReplication()
  const { primary, replica } = pair
  const api = await startApi({
    DATABASE_URL: primary.url,
    DATABASE_READ_URL: replica.url,
    DB_READ_MAX_LAG_MS: String(MAX_LAG_MS),
  })
  let running = true
  onTestFinished(async () => {
    running = false
    await api.close()
    await pair.stop()
  })

  const users = new Map<number, Change[]>()
  /** Since when the primary may not answer. */
  let awaySince = Number.POSITIVE_INFINITY
  let outages = 0
  let phase = ''
  const faults: object[] = []
  /** The slowest is that of the longest wait, in ms, but for what the machine is slower. */
  const reads = { gets: 0, pages: 0, slowest: 0 }
  const writes = { done: 0, refused: 0 }

  /** Sends it until it is answered with one of these. Each is safe to repeat. */
  async function write(method: string, path: string, body: object | undefined, headers: object, wanted: number[]) {
    for (;;) {
      const init: RequestInit = { method, headers: { 'content-type': 'application/json', ...headers } }
      if (body) init.body = JSON.stringify(body)
      const response = await fetch(api.url + path, init)
      const text = await response.text()
      if (wanted.includes(response.status)) {
        writes.done++
        return text
      }
      if (response.status !== 503) throw new Error(`${method} ${path}: ${text}`)
      writes.refused++
      await sleep(50)
    }
  }

  async function change(changes: Change[], version: number | undefined, work: () => Promise<unknown>) {
    const entry = { version, begun: performance.now(), done: Number.POSITIVE_INFINITY }
    changes.push(entry)
    await work()
    entry.done = performance.now()
  }

  async function writer(n: number) {
    const mine: number[] = []
    for (let i = 0; running; i++) {
      const id = mine[Math.floor(Math.random() * mine.length)]
      const changes = id === undefined ? undefined : users.get(id)
      const email = (version: number) => `w${n}i${i}v${version}@example.com`
      if (id === undefined || !changes || mine.length < USERS_OF_A_WRITER) {
        const user = { username: `w${n}i${i}`, email: email(0) }
        const begun = performance.now()
        const { id } = JSON.parse(await write('POST', '/users', user, { 'idempotency-key': user.username }, [201]))
        users.set(id, [{ version: 0, begun, done: performance.now() }])
        mine.push(id)
      } else if (Math.random() < 0.2) {
        mine.splice(mine.indexOf(id), 1)
        await change(changes, undefined, () => write('DELETE', `/users/${id}`, undefined, {}, [204, 404]))
      } else {
        await change(changes, i, () => write('PATCH', `/users/${id}`, { email: email(i) }, {}, [200]))
      }
      await sleep(Math.random() * 20)
    }
  }

  async function read(path: string, wanted: number[]) {
    const start = performance.now()
    const [outage, away] = [outages, awaySince]
    const response = await fetch(api.url + path)
    // biome-ignore lint/suspicious/noExplicitAny: a user, a page or a problem.
    const body: any = await response.json()
    const answered = performance.now()
    const waitMs = (answered - start) / slowness()
    reads.slowest = Math.max(reads.slowest, waitMs)
    const isAnswer = wanted.includes(response.status)
    if (!isAnswer || waitMs > MAX_WAIT_MS)
      faults.push({ path, phase, ms: answered - start, told: api.told.slice(-6), body: isAnswer ? 0 : body })
    const answers = outage === outages && away === Number.POSITIVE_INFINITY && awaySince === away
    return { start, answered, body, isAnswer, late: Math.min(start, away, awaySince) - MAX_LAG_MS, answers }
  }

  async function getter() {
    while (running) {
      const ids = [...users.keys()].slice(-100)
      const id = ids[Math.floor(Math.random() * ids.length)]
      if (id === undefined) {
        await sleep(10)
        continue
      }
      const { start, answered, body, isAnswer, late, answers } = await read(`/users/${id}`, [200, 404])
      reads.gets++
      if (!isAnswer) continue
      const fault = faultOf(users.get(id) ?? [], body.id ? body : undefined, answers ? start : late, answered)
      if (fault) faults.push({ get: id, phase, answers, ...fault })
    }
  }

  async function pager() {
    while (running) {
      const { late, answered, body, isAnswer } = await read('/users?limit=1000', [200])
      reads.pages++
      if (!isAnswer) continue
      const seen = new Map<number, Seen>(body.users.map((user: Seen) => [user.id, user]))
      for (const [id, changes] of users) {
        const fault = faultOf(changes, seen.get(id), late, answered)
        if (fault) faults.push({ page: id, phase, ...fault })
      }
      await sleep(10)
    }
  }

  const load = Promise.all([
    ...Array.from({ length: WRITERS }, (_, n) => writer(n)),
    ...[getter(), getter(), getter(), pager(), pager()],
  ])
  /** Waits until pages come from the replica, and writes are carried out. */
  const right = async () => {
    await expect.poll(() => api.state().replica?.up, { timeout: 30_000 }).toBe(true)
    const { done } = writes
    await expect.poll(() => writes.done).toBeGreaterThan(done + WRITERS)
  }
  const replicaFails = {
    killed: [() => replica.signal('KILL'), () => replica.start()],
    stopped: [() => replica.signal('STOP'), () => replica.signal('CONT')],
    silent: [() => replica.network.silence(true), () => replica.network.silence(false)],
    cut: [() => replica.network.cut(), () => replica.network.cut()],
    behind: [() => pair.lag(60_000), () => pair.lag(0)],
    late: [() => pair.lag(MAX_LAG_MS - 300), () => pair.lag(0)],
  }
  const primaryFails = {
    killed: [() => primary.signal('KILL'), () => primary.start()],
    stopped: [() => primary.signal('STOP'), () => primary.signal('CONT')],
    silent: [() => primary.network.silence(true), () => primary.network.silence(false)],
  }
  const all = [
    ...Object.entries(replicaFails).map(([how, outage]) => ['replica', how, outage] as const),
    ...Object.entries(primaryFails).map(([how, outage]) => ['primary', how, outage] as const),
  ]
  for (const [which, how, [begin, end]] of [...all, ...all].sort(() => Math.random() - 0.5)) {
    await right()
    phase = `${which} ${how}`
    if (which === 'primary') {
      awaySince = performance.now()
      outages++
    }
    await begin?.()
    await sleep(OUTAGE_MS)
    await end?.()
    phase += ', over'
    await right()
    awaySince = Number.POSITIVE_INFINITY
  }
  await replica.admin`select pg_promote()`
  await sleep(OUTAGE_MS)
  // What somebody writes to a server of its own is not in a page.
  await replica.admin`insert into users (username, email) values ('fork', 'fork@example.com')`
  await sleep(MAX_LAG_MS)
  running = false
  await load
  const { body } = await api.request('GET', '/users?limit=1000')
  expect(body.users.some(({ username }: { username: string }) => username === 'fork')).toBe(false)

  const rows: Seen[] = await primary.admin`select id::int, email from users`
  const there = new Map(rows.map((row) => [row.id, versionOf(row)]))
  for (const [id, changes] of users) expect([id, there.get(id)]).toEqual([id, changes.at(-1)?.version])
  expect(there.size).toBe([...users.values()].filter((changes) => changes.at(-1)?.version !== undefined).length)
  expect(faults.slice(0, 5), `${faults.length} of ${JSON.stringify({ reads, writes })}`).toEqual([])
  expect(writes.done).toBeGreaterThan(100)
}, 400_000)
