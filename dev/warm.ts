// Writes V8's compile cache: starts the built service once, without a database, and asks it something.
import { spawn } from 'node:child_process'
import { once } from 'node:events'

const TIMEOUT_MS = 60_000

/** The environment of a service that has no database, listens on a free port at once, and stops at once. */
export const WITHOUT_DATABASE = {
  PORT: '0',
  HOST: '127.0.0.1',
  DB_HOST: '127.0.0.1',
  DB_PORT: '1',
  STARTUP_WAIT_MS: '0',
  DRAIN_DELAY_MS: '0',
}

/**
 * Runs `main` until it has answered and stopped; the code that was compiled by then is in the cache. It runs with the
 * flags of this process: a cache fits the flags that it was made with.
 */
export async function warm(main: string) {
  const service = spawn(process.execPath, [...process.execArgv, main], {
    env: WITHOUT_DATABASE,
    stdio: ['ignore', 'pipe', 'inherit'],
    timeout: TIMEOUT_MS,
  })
  const exited = once(service, 'exit')
  let output = ''
  for await (const chunk of service.stdout.setEncoding('utf8')) {
    output += chunk
    const port = /"port":(\d+)/.exec(output)?.[1]
    if (!port || service.killed) continue
    for (const path of ['/users/1', '/users', '/livez']) await (await fetch(`http://127.0.0.1:${port}${path}`)).text()
    service.kill('SIGTERM')
  }
  const [code] = await exited
  if (code !== 0) throw new Error(`The built service ended with ${code}: ${output}`)
}

if (import.meta.main) await warm(process.argv[2] ?? 'dist/main.js')
