import { spawn } from 'node:child_process'
import http from 'node:http'
import https from 'node:https'
import { createInterface } from 'node:readline'
import { NAMESPACE } from './kubectl.ts'

/** More than the service's own deadlines: what takes longer hangs. */
const CLIENT_TIMEOUT_MS = 10_000
const KEEP_ALIVE_CLIENTS = 4
const TICK_MS = 10
const PRINTED_MAX = 30

type Request = { method: 'GET' | 'POST'; path: string; body?: object; expect: number }
export type Answer = {
  at: Date
  ms: number
  method: string
  path: string
  /** 0 where no answer came. */
  status: number
  error?: string
  requestId?: string
  /** The API pods that were on their way out when the request was sent. */
  ending: string[]
  expected: boolean
}
export type Report = {
  sent: number
  /** How many answers had which status; 0: none came. */
  statuses: Record<number, number>
  slowestMs: number
  failures: Answer[]
  /** The users of each 201, by their id. */
  created: Map<number, string>
}
export type LoadOptions = {
  url: string
  /** Requests a second, sent whether or not earlier ones were answered. */
  rate: number
  /** Requests that wait for an answer at a time; no limit if left out. For what a slow machine could not take at that rate. */
  inFlightMax?: number
  /** What to send; reads and writes in turn unless given. */
  next?: (n: number) => Request
}

/**
 * Sends at a constant rate until told to stop: three of four requests over kept connections of several clients, one of
 * four over a new connection. `stop` waits for every answer, and prints what failed.
 */
export function startLoad({ url, rate, inFlightMax = Number.POSITIVE_INFINITY, next = readsAndWrites() }: LoadOptions) {
  const { protocol, hostname, port } = new URL(url)
  const client = protocol === 'https:' ? https : http
  const agents = Array.from({ length: KEEP_ALIVE_CLIENTS }, () => new client.Agent({ keepAlive: true }))
  const answers: Answer[] = []
  const created = new Map<number, string>()
  const pending = new Set<Promise<void>>()
  const pods = watchPods()
  const started = performance.now()
  let sent = 0

  function send(n: number) {
    const { method, path, body, expect } = next(n)
    const at = new Date()
    const begun = performance.now()
    const ending = pods.ending()
    const agent = n % 4 === 3 ? false : agents[n % KEEP_ALIVE_CLIENTS]
    const headers = body && { 'content-type': 'application/json' }
    const answered = new Promise<Omit<Answer, 'at' | 'ms' | 'method' | 'path' | 'ending' | 'expected'>>((resolve) => {
      const request = client.request(
        { hostname, port, method, path, agent, headers, timeout: CLIENT_TIMEOUT_MS },
        (response) => {
          let text = ''
          response.setEncoding('utf8')
          response.on('data', (part: string) => {
            text += part
          })
          response.on('error', (error) => resolve({ status: 0, error: `cut off: ${error.message}` }))
          response.on('end', () => {
            const status = response.statusCode ?? 0
            if (status === 201) {
              const user = JSON.parse(text) as { id: number; username: string }
              created.set(user.id, user.username)
            }
            const id = response.headers['x-request-id']
            const wrong = status !== expect && { error: detailOf(text) }
            resolve({ status, ...wrong, ...(typeof id === 'string' && { requestId: id }) })
          })
        },
      )
      request.on('timeout', () => request.destroy(new Error(`no answer in ${CLIENT_TIMEOUT_MS} ms`)))
      request.on('error', (error: NodeJS.ErrnoException) => {
        resolve({ status: 0, error: error.code ? `${error.code} ${error.message}` : error.message })
      })
      request.end(body && JSON.stringify(body))
    }).then((outcome) => {
      const ms = Math.round(performance.now() - begun)
      answers.push({ at, ms, method, path, ending, ...outcome, expected: outcome.status === expect })
    })
    pending.add(answered)
    answered.finally(() => pending.delete(answered))
  }

  const timer = setInterval(() => {
    const due = Math.floor(((performance.now() - started) / 1000) * rate)
    while (sent < due && pending.size < inFlightMax) send(sent++)
  }, TICK_MS)

  return {
    /** The answers that came so far. */
    answers: (): readonly Answer[] => answers,
    async stop(title: string): Promise<Report> {
      clearInterval(timer)
      await Promise.all(pending)
      pods.stop()
      for (const agent of agents) agent.destroy()
      const statuses: Record<number, number> = {}
      for (const { status } of answers) statuses[status] = (statuses[status] ?? 0) + 1
      const slowestMs = answers.reduce((slowest, { ms }) => Math.max(slowest, ms), 0)
      const failures = answers.filter(({ expected }) => !expected)
      const seconds = Math.round((performance.now() - started) / 1000)
      console.log(
        `  ${title}: ${sent} requests in ${seconds} s, answers ${JSON.stringify(statuses)}, slowest ${slowestMs} ms, ${failures.length} failed`,
      )
      for (const failure of failures.slice(0, PRINTED_MAX)) console.log(`    ${line(failure)}`)
      if (failures.length > PRINTED_MAX) console.log(`    ... and ${failures.length - PRINTED_MAX} more`)
      return { sent, statuses, slowestMs, failures, created }
    },
  }
}

/** By turns a new user, one that exists already, and a page. */
function readsAndWrites(): (n: number) => Request {
  const run = `${Date.now().toString(36)}-${process.pid}`
  return (n) => {
    if (n % 2 === 1) return { method: 'GET', path: n % 4 === 1 ? '/users?limit=10' : '/users?limit=1', expect: 200 }
    const username = `load-${run}-${n}`
    return { method: 'POST', path: '/users', body: { username, email: `${username}@example.com` }, expect: 201 }
  }
}

/** What a problem says, or whatever else the body of a wrong answer begins with. */
function detailOf(body: string): string {
  const detail = /"detail":"([^"]*)"/.exec(body)?.[1]
  return detail ?? body.slice(0, 200)
}

function line({ at, ms, method, path, status, error, requestId, ending }: Answer): string {
  const who = [requestId && `request ${requestId}`, ending.length > 0 && `ending: ${ending.join(' ')}`].filter(Boolean)
  const what = `${status || 'no answer'} ${(error ?? '').replaceAll(/\s+/g, ' ')}`
  return `${at.toISOString().slice(11, 23)} ${method} ${path}: ${what} after ${ms} ms (${who.join(', ') || 'no pod ending'})`
}

/** Follows which API pods are on their way out. */
function watchPods() {
  const ending = new Set<string>()
  const output = 'jsonpath={.type} {.object.metadata.name} {.object.metadata.deletionTimestamp}{"\\n"}'
  const watch = spawn(
    'kubectl',
    ['get', 'pods', '--namespace', NAMESPACE, '--selector=app.kubernetes.io/name=users-api', '--watch'].concat([
      '--output-watch-events',
      `--output=${output}`,
    ]),
    { stdio: ['ignore', 'pipe', 'ignore'] },
  )
  createInterface({ input: watch.stdout }).on('line', (text) => {
    const [type, name, deleted] = text.split(' ')
    if (!name) return
    if (type === 'DELETED') ending.delete(name)
    else if (deleted) ending.add(name)
  })
  return { ending: () => [...ending], stop: () => watch.kill() }
}

/** Reads every page: the names of all users, by their id. */
export async function allUsers(url: string): Promise<Map<number, string>> {
  const found = new Map<number, string>()
  let cursor: string | null = null
  do {
    const answer = await fetch(`${url}/users?limit=1000${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ''}`)
    if (!answer.ok) throw new Error(`GET /users: ${answer.status}`)
    const page = (await answer.json()) as { users: { id: number; username: string }[]; next: string | null }
    for (const { id, username } of page.users) found.set(id, username)
    cursor = page.next
  } while (cursor)
  return found
}

/** Which of the users that were answered with 201 are not there, or are another. */
export async function missing(url: string, created: ReadonlyMap<number, string>): Promise<string[]> {
  const found = await allUsers(url)
  return [...created]
    .filter(([id, username]) => found.get(id) !== username)
    .map(([id, username]) => `${id} ${username}`)
}
