// Package fabric runs the contract on Hyperledger Fabric: a thin fabric-contract-api-go adapter that hands arguments, caller,
// time and state to package chaincode, and the chaincode-as-a-service server around it. It decides nothing itself.
package fabric
