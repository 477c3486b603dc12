// Where the API listens: whether it can, whether it does, and what a person calls it.
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { connect, createServer } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { DevError } from './messages.ts'
import { isRunning } from './processes.ts'

const LISTENING_INTERVAL_MS = 50

/** The host under which this machine reaches what listens on `host`. */
function reachableHost(host: string | undefined): string {
  if (!host || host === '::') return 'localhost'
  return host === '0.0.0.0' ? '127.0.0.1' : host
}

/** The beginning of every URL of the API, which this machine can ask. */
export function originOf(host: string | undefined, port: number): string {
  const name = reachableHost(host)
  return `http://${name.includes(':') ? `[${name}]` : name}:${port}`
}

/** Whether something listens there. */
async function answers(host: string, port: number): Promise<boolean> {
  const socket = connect(port, host)
  try {
    await once(socket, 'connect')
    return true
  } catch {
    return false
  } finally {
    socket.destroy()
  }
}

/** @throws DevError with the reason why the API cannot listen there */
export async function assertFree(port: number, host: string | undefined) {
  const taken = new DevError(`Port ${port} is taken: stop what uses it. PORT=0 npm run dev picks one that is free.`)
  const probe = createServer().listen(port, host)
  try {
    await once(probe, 'listening')
  } catch (error) {
    if (!(error instanceof Error && 'code' in error)) throw error
    if (error.code === 'EADDRINUSE') throw taken
    throw new DevError(`The API cannot listen with PORT=${port}${host ? ` and HOST=${host}` : ''}: ${error.message}`)
  }
  probe.close()
  await once(probe, 'close')
  // Some systems let two programs have the same port at different addresses.
  if (await answers(reachableHost(host), port)) throw taken
}

/** Calls `then` when the API listens, if it lives to do so. */
export async function whenListening(api: ChildProcess, host: string | undefined, port: number, then: () => void) {
  while (isRunning(api)) {
    if (await answers(reachableHost(host), port)) return then()
    await sleep(LISTENING_INTERVAL_MS)
  }
}
