import { setTimeout as sleep } from 'node:timers/promises'
import { residentMB } from './cpu.ts'
import { readAll, request } from './load.ts'
import { median, whole } from './report.ts'
import { SERVERS, type Server } from './server.ts'
import type { Bench } from './setup.ts'

const STREAMED_USERS = 1_000_000
const IDLE_MS = 1000
const LOOK_EVERY_MS = 100

async function readUsers(url: string, stopping: AbortSignal) {
  const lines = await readAll(url, stopping)
  if (lines !== STREAMED_USERS) throw new Error(`The stream had ${lines} lines.`)
}

/** The most memory that a process adds, while it streams every user, to what it had before. */
async function memoryOfStream({ pid, url }: Server, stopping: AbortSignal) {
  await sleep(IDLE_MS)
  const before = residentMB(pid)
  let peak = before
  const look = setInterval(() => {
    peak = Math.max(peak, residentMB(pid))
  }, LOOK_EVERY_MS)
  await readUsers(url, stopping).finally(() => clearInterval(look))
  return { before, added: peak - before }
}

/** Memory while every user is streamed, and the latency of others meanwhile. */
export async function stream({ start, fill, rounds, connections, seconds, stopping }: Bench): Promise<string> {
  await fill(STREAMED_USERS)
  const server = await start(SERVERS['users-api'])
  const fresh = await memoryOfStream(server, stopping)
  const load = () => request(server.url, { endpoint: 'GET /users/{id}', connections, seconds })
  await load()
  await request(server.url, { endpoint: 'GET /users?limit=100', connections, seconds })
  const warm = await memoryOfStream(server, stopping)

  const loadBesideStream = async () => {
    let loading = true
    const read = async () => {
      while (loading) await readUsers(server.url, stopping)
    }
    const loaded = load().finally(() => {
      loading = false
    })
    return (await Promise.all([loaded, read()]))[0]
  }
  const [alone, beside]: [number[], number[]] = [[], []]
  for (let round = 0; round < rounds; round++) {
    alone.push((await load()).p99)
    beside.push((await loadBesideStream()).p99)
  }
  await server.stop()
  return `Streaming ${whole(STREAMED_USERS)} users adds ${whole(fresh.added, ' MB')} to a fresh process (${whole(fresh.before, ' MB')}) \
and ${whole(warm.added, ' MB')} to a warm one (${whole(warm.before, ' MB')}). \
Beside a stream, p99 of \`GET /users/{id}\` is ${whole(median(beside), ' ms')}; without one, ${whole(median(alone), ' ms')}.`
}
