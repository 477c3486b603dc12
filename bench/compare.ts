import { availableParallelism } from 'node:os'
import { cpuSeconds, residentMB } from './cpu.ts'
import { type Answers, ENDPOINTS, type Endpoint, query, request } from './load.ts'
import { median, table, whole } from './report.ts'
import { SERVERS } from './server.ts'
import type { Bench } from './setup.ts'

const DRIVER = 'postgres.js alone'

/** What one load of one server gave and took. */
type Figure = {
  server: string
  endpoint: Endpoint
  rate: number
  p99: number
  /** CPU time a request, in microseconds. */
  serverCpu: number
  databaseCpu: number
  /** The server's memory after the load. */
  memoryMB?: number
}

/** Runs a load; notes the CPU time that the server, by its own clock, and PostgreSQL take meanwhile. */
async function measure({ database }: Bench, clock: () => number, load: () => Promise<Answers>) {
  const clocks = () => ({ server: clock(), database: cpuSeconds(database.pid) })
  const before = clocks()
  const { count, rate, p99 } = await load()
  const after = clocks()
  const perRequest = (of: 'server' | 'database') => (1e6 * (after[of] - before[of])) / count
  return { rate, p99, serverCpu: perRequest('server'), databaseCpu: perRequest('database') }
}

/** Loads a process that has just started with each endpoint in turn, after a second to warm up. */
async function measureServer(bench: Bench, server: string, script: string): Promise<Figure[]> {
  const { connections, seconds } = bench
  await bench.fill()
  const { url, pid, stop } = await bench.start(script)
  await request(url, { endpoint: 'GET /users/{id}', connections, seconds: 1 })
  const figures: Figure[] = []
  for (const endpoint of ENDPOINTS) {
    const load = () => request(url, { endpoint, connections, seconds })
    const measured = await measure(bench, () => cpuSeconds(pid), load)
    figures.push({ server, endpoint, ...measured, memoryMB: residentMB(pid) })
  }
  await stop()
  return figures
}

/** The driver runs in this process, which does nothing else meanwhile. */
async function measureDriver(bench: Bench): Promise<Figure[]> {
  const { connections, seconds, database } = bench
  const clock = () => {
    const { user, system } = process.cpuUsage()
    return (user + system) / 1e6
  }
  const figures: Figure[] = []
  for (const endpoint of ENDPOINTS) {
    const load = () => query(database.url, { endpoint, connections, seconds })
    figures.push({ server: DRIVER, endpoint, ...(await measure(bench, clock, load)) })
  }
  return figures
}

function row(figures: Figure[]): string[] {
  const of = (name: 'rate' | 'p99' | 'serverCpu' | 'databaseCpu' | 'memoryMB') =>
    median(figures.flatMap((figure) => figure[name] ?? []))
  return [
    whole(of('rate')),
    whole(of('p99'), ' ms'),
    `${whole(of('serverCpu'))} + ${whole(of('databaseCpu'))} µs`,
    whole(of('memoryMB'), ' MB'),
  ]
}

/** The service beside a bare server and beside the driver with no server, in interleaved rounds. */
export async function compare(bench: Bench): Promise<string> {
  const figures: Figure[] = []
  for (let round = 0; round < bench.rounds; round++) {
    for (const [name, script] of Object.entries(SERVERS)) figures.push(...(await measureServer(bench, name, script)))
    figures.push(...(await measureDriver(bench)))
  }
  const rows = ENDPOINTS.flatMap((endpoint) =>
    [...Object.keys(SERVERS), DRIVER].map((server) => {
      const rounds = figures.filter((figure) => figure.endpoint === endpoint && figure.server === server)
      return [`\`${endpoint}\``, server, ...row(rounds)]
    }),
  )
  const { connections, rounds, seconds } = bench
  return `${connections} connections, median of ${rounds} interleaved rounds of ${seconds} s, on ${availableParallelism()} cores:

${table(['request', 'server', 'requests a second', 'p99', 'CPU a request: server + PostgreSQL', 'memory after it'], rows)}`
}
