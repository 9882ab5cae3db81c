export * from '../cluster/inventory.ts'
