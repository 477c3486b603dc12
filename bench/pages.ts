import { residentMB } from './cpu.ts'
import { request } from './load.ts'
import { whole } from './report.ts'
import { SERVERS } from './server.ts'
import type { Bench } from './setup.ts'

/** Memory after a long load of pages. */
export async function pages({ start, fill, connections, pagesSeconds: seconds }: Bench): Promise<string> {
  await fill()
  const memory: string[] = []
  for (const [name, script] of Object.entries(SERVERS)) {
    const { url, pid, stop } = await start(script)
    await request(url, { endpoint: 'GET /users?limit=100', connections, seconds })
    memory.push(`${name} holds ${whole(residentMB(pid), ' MB')}`)
    await stop()
  }
  return `After ${seconds} s of \`GET /users?limit=100\`, ${memory.join(' and ')}.`
}
