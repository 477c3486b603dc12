import { refusals, request } from './load.ts'
import { median, whole } from './report.ts'
import { SERVERS } from './server.ts'
import type { Bench } from './setup.ts'

/** The throughput with twice the connections, and how fast the 503s come when only a quarter of those may be served. */
export async function overload({ start, fill, rounds, connections, seconds }: Bench): Promise<string> {
  await fill()
  const load = { endpoint: 'GET /users/{id}', connections, seconds } as const
  const twice = { ...load, connections: 2 * connections }
  const server = await start(SERVERS['users-api'])
  await request(server.url, { ...load, seconds: 1 })
  const ratios: number[] = []
  for (let round = 0; round < rounds; round++) {
    const saturated = await request(server.url, load)
    ratios.push((await request(server.url, twice)).rate / saturated.rate)
  }
  await server.stop()

  const limit = Math.ceil(connections / 2)
  const limited = await start(SERVERS['users-api'], { MAX_REQUESTS: String(limit) })
  const { count, p99 } = await refusals(limited.url, twice)
  await limited.stop()
  return `With ${twice.connections} connections, throughput is ${median(ratios).toFixed(2)} times that of ${connections}. \
With \`MAX_REQUESTS=${limit}\`, ${whole(count)} requests got 503, 99 % of them within ${whole(p99, ' ms')}.`
}
