package attack

var byTime []attack
