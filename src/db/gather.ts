import { DatabaseUnavailable } from './unavailable.ts'

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
  const inFlight = { batches: new Set<Waiting[]>(), alone: new Set<Waiting[]>() }
  const keysInFlight = new Set<string>()
  let waiting: Waiting[] = []
  /** Items of a batch that failed; their keys are still in flight. */
  let alone: Waiting[] = []
  let scheduled = false
  let timer: NodeJS.Timeout | undefined

  /** The first items that fit in one batch. The others keep their order. */
  function nextBatch(): Waiting[] {
    const batch: Waiting[] = []
    const left: Waiting[] = []
    const keysBefore = new Set<string>()
    let weight = 0
    let full = false
    for (const entry of waiting) {
      const held = entry.keys.some((key) => keysInFlight.has(key) || keysBefore.has(key))
      for (const key of entry.keys) keysBefore.add(key)
      const heavier = weight + weigh(entry.item)
      full ||= batch.length === maxItems || (batch.length > 0 && heavier > maxWeight)
      if (full || held) {
        left.push(entry)
      } else {
        batch.push(entry)
        weight = heavier
      }
    }
    waiting = left
    for (const { keys } of batch) for (const key of keys) keysInFlight.add(key)
    return batch
  }

  function settle(entry: Waiting, answer: () => void) {
    for (const key of entry.keys) keysInFlight.delete(key)
    answer()
  }

  async function send(batch: Waiting[], under: Set<Waiting[]>) {
    under.add(batch)
    const items = batch.map(({ item }) => item)
    const until = batch.reduce((latest, entry) => Math.max(latest, entry.until), 0)
    try {
      const results = await run(items, until)
      for (const [i, result] of results.entries()) {
        const entry = batch[i]
        if (entry) settle(entry, () => entry.resolve(result))
      }
    } catch (error) {
      if (batch.length > 1 && isOneItemsFault?.(error)) alone.push(...batch)
      else for (const entry of batch) settle(entry, () => entry.reject(error))
    }
    under.delete(batch)
    schedule()
  }

  function flush() {
    scheduled = false
    leave()
    while (alone.length > 0 && inFlight.alone.size < MAX_ALONE) void send(alone.splice(0, 1), inFlight.alone)
    while (inFlight.batches.size < maxInFlight) {
      const batch = nextBatch()
      if (batch.length === 0) break
      void send(batch, inFlight.batches)
    }
  }

  /** At the end of this turn of the event loop, when every request that came with it has been read. */
  function schedule() {
    if (scheduled || waiting.length + alone.length === 0) return
    scheduled = true
    setImmediate(flush)
  }

  /** Items past their deadline leave, or stay with their batch while their callers are answered. */
  function leave() {
    const now = performance.now()
    const late = ({ until }: Waiting) => until <= now
    for (const entry of alone.filter(late)) settle(entry, () => entry.reject(TOO_LATE))
    for (const entry of waiting.filter(late)) entry.reject(TOO_LATE)
    alone = alone.filter((entry) => !late(entry))
    waiting = waiting.filter((entry) => !late(entry))
    for (const batch of [...inFlight.batches, ...inFlight.alone].flat()) if (late(batch)) batch.reject(NO_ANSWER)
  }

  /** One timer for all items, set to the deadline that comes first. */
  function watch(until: number) {
    if (timer) return
    timer = setTimeout(() => {
      // After a pause of this process the answers may lie in the sockets: they are read first.
      setImmediate(() => {
        timer = undefined
        leave()
        const entries = [waiting, alone, ...inFlight.batches, ...inFlight.alone].flat()
        const next = entries.reduce((first, entry) => Math.min(first, entry.until), Number.POSITIVE_INFINITY)
        if (next < Number.POSITIVE_INFINITY) watch(Math.max(next, performance.now() + 1))
      })
    }, until - performance.now()).unref()
  }

  return (item: Item, until: number): Promise<Result> =>
    new Promise((resolve, reject) => {
      waiting.push({ item, keys: keysOf?.(item) ?? NO_KEYS, until, resolve, reject })
      watch(until)
      schedule()
    })
}

const TOO_LATE = new DatabaseUnavailable('its turn came too late', 'unsent')
const NO_ANSWER = new DatabaseUnavailable('it did not answer in time', 'lost')
