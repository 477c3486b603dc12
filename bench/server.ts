import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { freePort } from '../dev/postgres.ts'

/** What is measured, by the name that it has in the tables. */
export const SERVERS = {
  'users-api': fileURLToPath(new URL('../dist/main.js', import.meta.url)),
  'bare node:http + postgres.js': fileURLToPath(new URL('bare.ts', import.meta.url)),
} as const

/** As the image runs the service. */
export const FLAGS = ['--max-semi-space-size=8', '--max-old-space-size=384']

/** A server in a process of its own. */
export type Server = { url: string; pid: number; stop(): Promise<void> }

/**
 * Starts a server and waits until it answers.
 * @param stopping kills it when aborted
 * @throws Error when it ends instead
 */
export async function startServer(script: string, env: NodeJS.ProcessEnv, stopping: AbortSignal): Promise<Server> {
  const port = await freePort()
  const url = `http://127.0.0.1:${port}`
  const child = spawn(process.execPath, [...FLAGS, script], {
    env: { ...process.env, ...env, PORT: String(port), DRAIN_DELAY_MS: '0' },
    stdio: ['ignore', 'ignore', 'inherit'],
    signal: stopping,
    killSignal: 'SIGKILL',
  })
  const exited = once(child, 'exit')
  // Until somebody waits for it.
  exited.catch(() => {})
  while (!(await fetch(`${url}/users/1`).catch(() => undefined))?.ok) {
    stopping.throwIfAborted()
    if (child.exitCode !== null || child.signalCode !== null) throw new Error(`${script} ended before it answered.`)
    await sleep(20)
  }
  return {
    url,
    pid: child.pid as number,
    async stop() {
      child.kill('SIGTERM')
      await exited
    },
  }
}
