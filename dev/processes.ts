import { type ChildProcess, execFile, type SpawnOptions, spawn } from 'node:child_process'
import { once } from 'node:events'
import { promisify } from 'node:util'

export type ChildOptions = SpawnOptions & {
  /** A folder that goes with the process, if this process does not live to see its end. */
  temporary?: string | undefined
}

/** Waits until its input closes, then ends the process $0, by force after 10 s, and removes the folder $1. */
const GUARD = `
read _
kill -CONT "$0" && kill -INT "$0"
left=100
while kill -0 "$0" && [ $left -gt 0 ]; do sleep 0.1; left=$((left - 1)); done
kill -KILL "$0"
rm -rf "$1"`

/** Whether there is a process with this number. */
export function exists(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    // Another user's process may not be sent a signal.
    return error instanceof Error && 'code' in error && error.code === 'EPERM'
  }
}

/** The command line of a process, and its parent; undefined where no `ps` tells, as on Windows. */
export async function commandOf(pid: number): Promise<{ ppid: number; command: string } | undefined> {
  const ps = promisify(execFile)('ps', ['-ww', '-o', 'ppid=,args=', '-p', String(pid)])
  const [, ppid, command] = /(\d+) (.*)/.exec((await ps.catch(() => undefined))?.stdout ?? '') ?? []
  return ppid && command ? { ppid: Number(ppid), command } : undefined
}

export const isRunning = (child: ChildProcess) =>
  child.pid !== undefined && child.exitCode === null && child.signalCode === null

/**
 * Starts a program that never outlives this process, however this one ends: a shell holds a pipe from it, and sees it
 * close. Both have groups of their own, because a signal of the terminal is for this process to pass on.
 */
export function startChild(command: string, args: string[], { temporary, ...options }: ChildOptions): ChildProcess {
  const child = spawn(command, args, { ...options, detached: true })
  if (child.pid === undefined) return child
  const guard = spawn('sh', ['-c', GUARD, String(child.pid), temporary ?? ''], {
    stdio: ['pipe', 'ignore', 'ignore'],
    detached: true,
  })
  // Windows may have no sh: then nothing is guarded.
  guard.on('error', () => {})
  child.once('exit', () => guard.kill('SIGKILL'))
  return child
}

/** Ends a child by `signal`, even a suspended one, and by force after `graceMs`. Resolves when it has ended. */
export async function endChild(child: ChildProcess, signal: NodeJS.Signals, graceMs: number): Promise<void> {
  if (!isRunning(child)) return
  const closed = once(child, 'close')
  child.kill('SIGCONT')
  child.kill(signal)
  const force = setTimeout(() => child.kill('SIGKILL'), graceMs)
  await closed
  clearTimeout(force)
}
