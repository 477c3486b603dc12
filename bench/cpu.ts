// CPU time and memory of processes, as the operating system counts them.
import { spawnSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'

/** Linux counts CPU time in hundredths of a second on every machine that Node runs on. */
const TICKS_PER_SECOND = 100

/** The CPU time includes that of children that have ended. */
type Process = { pid: number; parent: number; cpuSeconds: number }

const ps = (args: string[]) => spawnSync('ps', args, { encoding: 'utf8', env: { ...process.env, LC_ALL: 'C' } }).stdout

/** One process, or none if it has just ended. */
function fromProc(pid: number): Process[] {
  let text: string
  try {
    text = readFileSync(`/proc/${pid}/stat`, 'utf8')
  } catch {
    return []
  }
  // Fields are counted from the end of the command, which is in parentheses and may hold spaces.
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
  const ticks = fields.slice(11, 15).reduce((sum, field) => sum + Number(field), 0)
  return [{ pid, parent: Number(fields[1]), cpuSeconds: ticks / TICKS_PER_SECOND }]
}

/** Seconds of `[[days-]hours:]minutes:seconds`, which is how `ps` prints a time. */
export function psSeconds(time: string): number {
  const [seconds = 0, minutes = 0, hours = 0, days = 0] = time.split(/[-:]/).map(Number).reverse()
  return ((days * 24 + hours) * 60 + minutes) * 60 + seconds
}

/** The `ps` of Linux knows whole seconds only; that of macOS has hundredths, and `-S` adds children that have ended. */
function processes(): Process[] {
  if (process.platform === 'linux') {
    const pids = readdirSync('/proc').map(Number).filter(Number.isInteger)
    return pids.flatMap(fromProc)
  }
  const lines = ps(['-axS', '-o', 'pid=,ppid=,time=']).trim().split('\n')
  return lines.map((line) => {
    const [pid, parent, time] = line.trim().split(/\s+/)
    return { pid: Number(pid), parent: Number(parent), cpuSeconds: psSeconds(time ?? '') }
  })
}

/** A process, its children, and theirs. */
export function processTree(root: number): Process[] {
  const all = processes()
  const tree = all.filter(({ pid }) => pid === root)
  for (const { pid } of tree) tree.push(...all.filter(({ parent }) => parent === pid))
  return tree
}

/** CPU seconds that a process and all that it started have used so far. */
export const cpuSeconds = (root: number) => processTree(root).reduce((sum, { cpuSeconds }) => sum + cpuSeconds, 0)

/** The memory of a process that is in RAM now, in MB. */
export const residentMB = (pid: number) => Number(ps(['-o', 'rss=', '-p', String(pid)])) / 1024
