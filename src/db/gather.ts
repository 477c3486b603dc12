import { NO_ANSWER, TOO_LATE } from './unavailable.ts'

export type GatherOptions<Item, Result> = {
  /** Runs a batch before `until`, a time of performance.now(): one result for each item, in the order of the items. */
  run(items: Item[], until: number): Promise<Result[]>
  /** Batches under way at a time. */
  maxInFlight: number
  /** Items in a batch. */
  maxItems: number
  /** Most that the items of a batch weigh together. A heavier item goes alone. */
  maxWeight?: number
  /** Weight of an item; 1 if left out. */
  weigh?(item: Item): number
  /** Items that share a key are never under way together: the one that came first goes first. */
  keysOf?(item: Item): readonly string[]
  /** Whether one item may have failed its whole batch, of which nothing was done: then each of its items goes alone. */
  isOneItemsFault?(error: unknown): boolean
}

type Entry<Item, Result> = {
  item: Item
  keys: readonly string[]
  until: number
  /** Its batch failed because of one item: it goes by itself, and its keys are still in flight. */
  alone: boolean
  resolve(result: Result): void
  reject(error: unknown): void
}

/** Items that go alone, under way at a time: they wait for locks, and must not hold up the batches. */
const MAX_ALONE = 4
const NO_KEYS: readonly string[] = []

/**
 * Makes a function that asks for one item. Items that are asked for in the same turn of the event loop, or while
 * `maxInFlight` batches are under way, go in one batch. An item that is alone goes at the end of the turn.
 *
 * Each item has a deadline of its own. Past it the caller gets DatabaseUnavailable: an item that waits leaves, one that
 * is under way is left to its batch.
 */
export function gather<Item, Result>(options: GatherOptions<Item, Result>) {
  type Waiting = Entry<Item, Result>
  const { run, maxInFlight, maxItems, maxWeight = maxItems, weigh = () => 1, keysOf, isOneItemsFault } = options
  const inFlight = new Set<Waiting[]>()
  const keysInFlight = new Set<string>()
  let waiting: Waiting[] = []
  let scheduled = false
  let timer: NodeJS.Timeout | undefined

  const mayGo = (alone: boolean) =>
    [...inFlight].filter(([first]) => first?.alone === alone).length < (alone ? MAX_ALONE : maxInFlight)

  /** The first items that fit in one batch; none if they have to wait. The others keep their order. */
  function nextBatch(): Waiting[] {
    const single = mayGo(true) ? waiting.find(({ alone }) => alone) : undefined
    if (single) return waiting.splice(waiting.indexOf(single), 1)
    if (!mayGo(false)) return []
    const batch: Waiting[] = []
    const keysBefore = new Set<string>()
    let weight = 0
    let full = false
    waiting = waiting.filter((entry) => {
      const held = entry.keys.some((key) => keysInFlight.has(key) || keysBefore.has(key))
      for (const key of entry.keys) keysBefore.add(key)
      const heavier = weight + weigh(entry.item)
      full ||= batch.length === maxItems || (batch.length > 0 && heavier > maxWeight)
      if (full || held || entry.alone) return true
      weight = heavier
      batch.push(entry)
      return false
    })
    for (const { keys } of batch) for (const key of keys) keysInFlight.add(key)
    return batch
  }

  async function send(batch: Waiting[]) {
    inFlight.add(batch)
    const until = batch.reduce((latest, entry) => Math.max(latest, entry.until), 0)
    try {
      const results = await run(
        batch.map(({ item }) => item),
        until,
      )
      for (const [i, result] of results.entries()) batch[i]?.resolve(result)
      release(batch)
    } catch (error) {
      if (batch.length > 1 && isOneItemsFault?.(error)) {
        waiting.push(...batch.map((entry) => ({ ...entry, alone: true })))
      } else {
        for (const entry of batch) entry.reject(error)
        release(batch)
      }
    }
    inFlight.delete(batch)
    schedule()
  }

  function release(entries: Waiting[]) {
    for (const { keys } of entries) for (const key of keys) keysInFlight.delete(key)
  }

  function flush() {
    scheduled = false
    leave()
    for (let batch = nextBatch(); batch.length > 0; batch = nextBatch()) void send(batch)
  }

  /** At the end of this turn of the event loop, when every request that came with it has been read. */
  function schedule() {
    if (scheduled || waiting.length === 0) return
    scheduled = true
    setImmediate(flush)
  }

  /** Items past their deadline leave, or stay with their batch while their callers are answered. */
  function leave() {
    const now = performance.now()
    const late = waiting.filter(({ until }) => until <= now)
    if (late.length > 0) waiting = waiting.filter(({ until }) => until > now)
    release(late.filter(({ alone }) => alone))
    for (const entry of late) entry.reject(TOO_LATE)
    for (const entry of [...inFlight].flat()) if (entry.until <= now) entry.reject(NO_ANSWER)
  }

  /** One timer for all items, set to the deadline that comes first. */
  function watch(until: number) {
    if (timer) return
    // After a pause of this process the answers may lie in the sockets: they are read first.
    timer = setTimeout(() => setImmediate(onDeadline), Math.max(0, until - performance.now())).unref()
  }

  function onDeadline() {
    timer = undefined
    leave()
    schedule()
    const next = Math.min(...[waiting, ...inFlight].flat().map(({ until }) => until))
    if (next < Number.POSITIVE_INFINITY) watch(Math.max(next, performance.now() + 1))
  }

  return (item: Item, until: number): Promise<Result> =>
    new Promise((resolve, reject) => {
      waiting.push({ item, keys: keysOf?.(item) ?? NO_KEYS, until, alone: false, resolve, reject })
      watch(until)
      schedule()
    })
}
