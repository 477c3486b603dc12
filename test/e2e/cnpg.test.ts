/**
 * The servers of the component cloudnative-pg fail in one way after the other, under a load that does not end. Each failure costs
 * what kustomize/README.md says, and no user is lost or made twice.
 *
 * The cluster needs the operator CloudNativePG, 1.30 or newer.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { slowness } from '../machine.ts'
import { apiPods, apply, deleteNamespace, get, hurry, kubectl, kubectlWithInput, reachable, until } from './kubectl.ts'
import { allUsers } from './load.ts'

const WRITERS = 24
const READERS = 4
/** What a client waits after an answer. */
const WRITER_PAUSE_MS = 200
const READER_PAUSE_MS = 50
/** Longest time that a reader is without an answer: a second, or up to three where others use the machine. */
const readsAwayS = () => Math.min(3, slowness())
/** Writes may be away for so many times as long as usually, and longer where others slow the machine. */
const WRITES_ROOM = 3
/** How much longer writes may be away than for psql, where nobody else uses the machine. */
const WRITES_BEHIND_S = 5
/** Of four pods, by DB_CONNECTIONS and MAX_STREAMS. */
const CONNECTIONS_MAX = 4 * (9 + 4)
const HEALTHY = 'Cluster in healthy state'

type Status = { phase: string; instanceNames: string[]; currentPrimary: string }
type Kind = 'write' | 'get' | 'page'
type Answer = { kind: Kind; client: number; at: number; ms: number; status: number; text: string }

let url: string
let load: ReturnType<typeof startLoad>

/** Writers repeat each request, with its Idempotency-Key, until it succeeds. Readers ask for one user after the other, or for a page. */
function startLoad() {
  const answers: Answer[] = []
  const created = new Map<number, string>()
  const ids: number[] = []
  let running = true

  async function ask(kind: Kind, client: number, path: string, init: RequestInit = {}): Promise<Answer> {
    const begun = performance.now()
    const [status, text] = await fetch(`${url}${path}`, { ...init, signal: AbortSignal.timeout(10_000) })
      .then(async (answer) => [answer.status, await answer.text()] as const)
      .catch((error) => [0, `${error}`] as const)
    const at = performance.now()
    const answer = { kind, client, at, ms: at - begun, status, text }
    answers.push(answer)
    return answer
  }

  async function write(client: number) {
    for (let n = 0; running; n++) {
      const username = `${client}-${n}`
      const headers = { 'content-type': 'application/json', 'idempotency-key': username }
      const init = { method: 'POST', headers, body: JSON.stringify({ username, email: `${username}@example.com` }) }
      let answer: Answer
      do {
        answer = await ask('write', client, '/users', init)
        await sleep(WRITER_PAUSE_MS)
      } while (answer.status !== 201)
      const { id } = JSON.parse(answer.text)
      created.set(id, username)
      ids.push(id)
    }
  }

  async function read(client: number) {
    for (let n = 0; running; n++) {
      const id = ids[n % ids.length]
      if (client % 2 === 0) await ask('page', client, '/users?limit=10')
      else if (id) await ask('get', client, `/users/${id}`)
      await sleep(READER_PAUSE_MS)
    }
  }

  const clients = [...Array(WRITERS).keys()].map(write).concat([...Array(READERS).keys()].map(read))
  return {
    ask,
    answers,
    /** The user of each 201, by its id. */
    created,
    /** Waits until each writer has its last 201. */
    async stop() {
      running = false
      await Promise.all(clients)
    },
  }
}

/** A client to compare with: psql, which writes five times a second, and connects anew when it lost its connection. */
async function startPsql() {
  const { spec } = await get<{ spec: { imageName: string } }>('cluster', 'users-db')
  const server = 'host=users-db-rw sslmode=require connect_timeout=1 tcp_user_timeout=1000'
  const login = { PGUSER: 'username', PGPASSWORD: 'password', PGDATABASE: 'dbname' }
  const psql = `psql "${server}" --no-psqlrc --quiet --tuples-only --no-align`
  const insert = 'insert into heartbeat default values returning extract(epoch from clock_timestamp()) * 1000'
  const script = `
    echo 'create table heartbeat (n int)' | ${psql}
    while :; do echo '${insert} \\watch 0.2' | ${psql} 2>/dev/null; sleep 0.1; done`
  const container = {
    name: 'psql',
    image: spec.imageName,
    command: ['sh', '-c', script],
    env: Object.entries(login).map(([name, key]) => {
      return { name, valueFrom: { secretKeyRef: { name: 'users-db-app', key } } }
    }),
    securityContext: { allowPrivilegeEscalation: false, capabilities: { drop: ['ALL'] } },
  }
  const securityContext = { runAsNonRoot: true, runAsUser: 26, seccompProfile: { type: 'RuntimeDefault' } }
  // With the label of the servers, which may speak to each other.
  const metadata = { name: 'psql', labels: { 'cnpg.io/cluster': 'users-db' } }
  const options = { terminationGracePeriodSeconds: 0, automountServiceAccountToken: false, securityContext }
  const pod = { apiVersion: 'v1', kind: 'Pod', metadata, spec: { ...options, containers: [container] } }
  await kubectlWithInput(JSON.stringify(pod), 'apply', '--filename=-')
  await until('psql writes', 60, async () => (await psqlWrites().catch(() => [])).length > 0)
}

/** When psql wrote, as times of performance.now(). */
const psqlWrites = async () =>
  (await kubectl('logs', 'psql', '--tail=-1'))
    .split('\n')
    .map((line) => Number(line) - performance.timeOrigin)
    .filter((at) => at > 0)

const isRight = ({ status }: Answer) => status === 200 || status === 201

/** The longest time, in seconds, between two of those. */
function longestPause(times: number[], begun: number, ended: number) {
  const all = [begun, ...times.filter((at) => at > begun), ended]
  return Math.max(...all.slice(1).map((at, i) => at - (all[i] ?? 0))) / 1000
}

const away = (answers: Answer[], begun: number, ended: number) =>
  longestPause(
    answers.filter(isRight).map(({ at }) => at),
    begun,
    ended,
  )

/** What clients noticed since then: how long writes were away, for psql too, and how long the reader that waited longest. */
async function noticed(title: string, begun: number) {
  const [ended, answers] = [performance.now(), load.answers.filter(({ at }) => at >= begun)]
  const of = (kind: Kind) => answers.filter((answer) => answer.kind === kind)
  const longest = (kind: Kind) =>
    Math.max(...[...Map.groupBy(of(kind), ({ client }) => client).values()].map((one) => away(one, begun, ended)))
  const awayS = { write: away(of('write'), begun, ended), get: longest('get'), page: longest('page') }
  const psqlS = longestPause(await psqlWrites(), begun, ended)
  console.log(`  ${title}: psql: away for ${psqlS.toFixed(1)} s`)
  for (const kind of ['write', 'get', 'page'] as const) {
    const failed = of(kind).filter((answer) => !isRight(answer))
    const slowestMs = Math.max(...of(kind).map(({ ms }) => ms))
    console.log(
      `  ${title}: ${kind}: away for ${awayS[kind].toFixed(1)} s, ${failed.length} of ${of(kind).length} failed, slowest ${slowestMs.toFixed()} ms`,
    )
  }
  return { ...awayS, psql: psqlS }
}

const status = async () => (await get<{ status: Status }>('cluster', 'users-db')).status
const patchCluster = (patch: object, ...args: string[]) =>
  kubectl('patch', 'cluster', 'users-db', '--type=merge', `--patch=${JSON.stringify(patch)}`, ...args)

/** Runs a shell command where PostgreSQL runs. */
const inServer = (instance: string, command: string) =>
  kubectl('exec', instance, '--container=postgres', '--', 'sh', '-c', command)
const ask = (instance: string, sql: string) => inServer(instance, `psql --dbname=users -qAtc "${sql}"`)

const count = async (instance: string, what: string) => Number(await ask(instance, `select count(*) from ${what}`))
/** Those that receive what the server writes. A healthy one may need some seconds more to find its new primary. */
const standbysOf = (primary: string) => count(primary, "pg_stat_replication where state = 'streaming'")

/** Since when each API pod is ready, and how often it was restarted. */
const apiState = async () =>
  (await apiPods()).map(({ metadata, status: { conditions, containerStatuses } }) => [
    metadata.name,
    containerStatuses?.[0]?.restartCount,
    conditions?.find(({ type }) => type === 'Ready'),
  ])

const allIsWell = () =>
  until('every answer of the last second is right', 60, async () =>
    load.answers.filter(({ at }) => performance.now() - at < 1000).every(isRight),
  )

/**
 * Lets a server fail, and waits until all three are well.
 * @param usuallyS how long writes usually are away, in s
 * @param atMostS how long they may be away, however slow the machine is, in s
 * @param fail returns a probe that tells when the failure is over, in a cluster that is healthy
 */
async function expectAway(
  usuallyS: number,
  atMostS: number,
  fail: (before: Status) => Promise<(now: Status) => unknown>,
) {
  const title = `${expect.getState().currentTestName}`
  const [pods, begun] = [await apiState(), performance.now()]
  const isOver = await fail(await status())
  await until('the failure is over', 120, async () => {
    const now = await status()
    return now.phase === HEALTHY && (await isOver(now)) === true && (await standbysOf(now.currentPrimary)) === 2
  })
  await allIsWell()
  console.log(`  ${title}: three servers are healthy after ${((performance.now() - begun) / 1000).toFixed()} s`)
  const awayS = await noticed(title, begun)
  const writesS = Math.min(atMostS, WRITES_ROOM * usuallyS * slowness())
  expect(awayS.write).toBeLessThanOrEqual(writesS)
  expect(awayS.psql).toBeLessThanOrEqual(writesS)
  // PostgreSQL and its operator need their time. The API adds little to that.
  expect(awayS.write).toBeLessThanOrEqual(awayS.psql + WRITES_BEHIND_S * slowness())
  expect(Math.max(awayS.get, awayS.page)).toBeLessThanOrEqual(readsAwayS())
  expect(await apiState(), 'API pods').toEqual(pods)
}

beforeAll(async () => {
  await deleteNamespace()
  await apply('tests/cloudnative-pg')
  await hurry()
  await kubectl('rollout', 'status', 'deployment/users-api', '--timeout=180s')
  await until('three servers are well', 180, async () => {
    const now = await status()
    return now.phase === HEALTHY && (await standbysOf(now.currentPrimary)) === 2
  })
  await startPsql()
  url = await reachable()
  load = startLoad()
  await sleep(3000)
})
afterAll(() => deleteNamespace())

test('PostgreSQL is killed', () =>
  expectAway(6, 40, async ({ currentPrimary }) => {
    const startedAt = () => ask(currentPrimary, 'select pg_postmaster_start_time()').catch(() => undefined)
    const before = await startedAt()
    await inServer(currentPrimary, 'kill -9 $(head -n 1 $PGDATA/postmaster.pid)')
    return async () => ![undefined, before].includes(await startedAt())
  }))

test('a parameter changes that needs a restart', () =>
  expectAway(1, 15, async ({ currentPrimary }) => {
    await patchCluster({ spec: { postgresql: { parameters: { shared_buffers: '272MB' } } } })
    return async () => (await ask(currentPrimary, 'show shared_buffers')) === '272MB'
  }))

test('another server is promoted', () =>
  expectAway(9, 30, async ({ currentPrimary, instanceNames }) => {
    const next = instanceNames.find((name) => name !== currentPrimary)
    // As `kubectl cnpg promote` does.
    const phase = { phase: 'Switchover in progress', phaseReason: `Switching over to ${next}` }
    const targetPrimaryTimestamp = new Date().toISOString()
    await patchCluster({ status: { targetPrimary: next, targetPrimaryTimestamp, ...phase } }, '--subresource=status')
    return (now) => now.currentPrimary === next
  }))

test("the primary's pod is deleted", () =>
  expectAway(5, 30, async ({ currentPrimary }) => {
    const uidOfPod = async () =>
      (await get<{ metadata: { uid: string } }>('pod', currentPrimary).catch(() => undefined))?.metadata.uid
    const before = await uidOfPod()
    await kubectl('delete', 'pod', currentPrimary, '--wait=false')
    // Where the next pod is there before the operator has decided, it is the primary again.
    return async () => ![undefined, before].includes(await uidOfPod())
  }))

test("the primary's pod is deleted with no grace", () =>
  expectAway(8, 30, async ({ currentPrimary }) => {
    await kubectl('delete', 'pod', currentPrimary, '--grace-period=0', '--force')
    return (now) => now.currentPrimary !== currentPrimary
  }))

/** Changes one user after the other, whether or not earlier changes had an answer, until it is told to stop. */
function startChanges() {
  const ids = [...load.created.keys()]
  let running = true
  const change = async (client: number) => {
    const headers = { 'content-type': 'application/merge-patch+json' }
    for (let n = client; running; n += WRITERS) {
      const id = ids[n % ids.length]
      await load.ask('write', client, `/users/${id}`, {
        method: 'PATCH',
        headers,
        body: `{"email": "${n}@example.org"}`,
      })
      await sleep(WRITER_PAUSE_MS)
    }
  }
  const clients = [...Array(WRITERS).keys()].map(change)
  return () => {
    running = false
    return Promise.all(clients)
  }
}

test('without a standby writes get 503 at once and reads go on; with one all is well again', async () => {
  const title = 'without a standby'
  const { currentPrimary, instanceNames } = await status()
  const standbys = instanceNames.filter((name) => name !== currentPrimary)
  const fence = (instances: string[]) =>
    kubectl('annotate', 'cluster', 'users-db', `cnpg.io/fencedInstances=${JSON.stringify(instances)}`, '--overwrite')
  const [pods, begun, since] = [await apiState(), performance.now(), new Date().toISOString()]
  await fence(standbys)
  await until('no standby is left', 60, async () => (await standbysOf(currentPrimary)) === 0)
  const stop = startChanges()
  const logs = () =>
    kubectl(
      'logs',
      '--selector=app.kubernetes.io/name=users-api',
      '--container=api',
      `--since-time=${since}`,
      '--tail=-1',
    )
  await until('the log says so', 15, async () => (await logs()).includes('database writes unavailable'))
  await until('writes are refused at once', 30, async () => {
    const recent = load.answers.filter(({ kind, at }) => kind === 'write' && performance.now() - at < 2000)
    return recent.length > WRITERS && recent.every(({ status, ms }) => status === 503 && ms < 500)
  })
  console.log(`  ${title}: writes are refused at once after ${((performance.now() - begun) / 1000).toFixed(1)} s`)
  const backends = await count(currentPrimary, "pg_stat_activity where usename = 'users_api'")
  await fence(standbys.slice(1))
  await until('a standby is there', 60, async () => (await standbysOf(currentPrimary)) > 0)
  const returned = performance.now()
  await allIsWell()
  const wellMs = Math.max(...load.answers.filter((answer) => !isRight(answer)).map(({ at }) => at)) - returned
  const awayS = await noticed(title, begun)
  await stop()
  await fence([])
  console.log(`  ${title}: ${backends} connections; all is well ${wellMs.toFixed()} ms after one is there`)
  expect(backends).toBeLessThanOrEqual(CONNECTIONS_MAX)
  expect(wellMs).toBeLessThan(3000)
  expect(Math.max(awayS.get, awayS.page)).toBeLessThanOrEqual(readsAwayS())
  expect(await apiState(), 'API pods').toEqual(pods)
})

test('of all that was written nothing is lost, and nothing is there twice', async () => {
  await load.stop()
  expect(new Set(load.answers.map((answer) => answer.status))).toEqual(new Set([200, 201, 503]))
  console.log(`  ${load.created.size} users were created`)
  expect(await allUsers(url)).toEqual(load.created)
})
